// Package gcpkms takes the place of the driver of gcpkms://, with which Pulumi compiles Google's client libraries.
package gcpkms

import (
	"context"
	"errors"
	"net/url"

	"gocloud.dev/secrets"
	"golang.org/x/oauth2"
)

// Scheme is that of the addresses which authhelpers refuses.
const Scheme = "gcpkms"

var errLeftOut = errors.New("gcpkms:// is left out of this build of Pulumi")

// URLOpener opens nothing.
type URLOpener struct {
	Client any
}

// Dial says that gcpkms:// is left out.
func Dial(context.Context, oauth2.TokenSource) (any, func(), error) {
	return nil, nil, errLeftOut
}

// OpenKeeperURL says that gcpkms:// is left out.
func (*URLOpener) OpenKeeperURL(context.Context, *url.URL) (*secrets.Keeper, error) {
	return nil, errLeftOut
}
