// Package googleiam takes the place of a log-in at a cloud for remote writing, with which Prometheus compiles that cloud's
// libraries. No configuration that has it is read.
package googleiam

import (
	"errors"
	"net/http"
)

var errLeftOut = errors.New("google_iam is left out of this build of Prometheus")

// Config has no settings.
type Config struct{}

// UnmarshalYAML says that it is left out, so that promtool says it as well.
func (*Config) UnmarshalYAML(func(any) error) error { return errLeftOut }

// NewRoundTripper says that it is left out.
func NewRoundTripper(*Config, http.RoundTripper) (http.RoundTripper, error) { return nil, errLeftOut }
