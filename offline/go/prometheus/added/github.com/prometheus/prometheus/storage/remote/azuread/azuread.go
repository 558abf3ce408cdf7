// Package azuread takes the place of a log-in at a cloud for remote writing, with which Prometheus compiles that cloud's
// libraries. No configuration that has it is read.
package azuread

import (
	"errors"
	"net/http"
)

var errLeftOut = errors.New("azuread is left out of this build of Prometheus")

// AzureADConfig has no settings.
type AzureADConfig struct{}

// UnmarshalYAML says that it is left out, so that promtool says it as well.
func (*AzureADConfig) UnmarshalYAML(func(any) error) error { return errLeftOut }

// NewAzureADRoundTripper says that it is left out.
func NewAzureADRoundTripper(*AzureADConfig, http.RoundTripper) (http.RoundTripper, error) {
	return nil, errLeftOut
}
