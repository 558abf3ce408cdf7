package authhelpers

import (
	"context"
	"errors"

	"gocloud.dev/blob"
	"golang.org/x/oauth2/google"
)

var errLeftOut = errors.New(
	"gs:// and gcpkms:// are left out of this build of Pulumi, which was made without Pulumi's own download: " +
		"install Pulumi itself, or keep the state at s3://, azblob:// or file://")

// ResolveGoogleCredentials says that Google's cloud is left out.
func ResolveGoogleCredentials(context.Context, string) (*google.Credentials, error) {
	return nil, errLeftOut
}

// GoogleCredentialsMux says that Google's cloud is left out.
func GoogleCredentialsMux(context.Context) (*blob.URLMux, error) {
	return nil, errLeftOut
}
