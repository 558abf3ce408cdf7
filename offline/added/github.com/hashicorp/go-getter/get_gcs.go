package getter

import (
	"errors"
	"net/url"
)

var errNoGCS = errors.New("gcs:: is left out of this build")

// GCSGetter takes the place of the one with which a bridge's schema writer compiles Google's client libraries.
type GCSGetter struct {
	getter
}

// ClientMode says that it is left out.
func (*GCSGetter) ClientMode(*url.URL) (ClientMode, error) { return ClientModeInvalid, errNoGCS }

// Get says that it is left out.
func (*GCSGetter) Get(string, *url.URL) error { return errNoGCS }

// GetFile says that it is left out.
func (*GCSGetter) GetFile(string, *url.URL) error { return errNoGCS }
