// Package gcp takes the place of the check of machines in Google's cloud. Caddy's certificate authority, which has ACME
// alone, cannot be told to make one; the library compiles Google's client for it.
package gcp

import (
	"context"
	"errors"
)

// OrganizationValidator refuses.
type OrganizationValidator struct{}

// NewOrganizationValidator says that it is left out.
func NewOrganizationValidator([]string, string) (*OrganizationValidator, error) {
	return nil, errors.New("machines in Google's cloud are left out of this build of Caddy")
}

// ValidateProject refuses.
func (*OrganizationValidator) ValidateProject(context.Context, string) error {
	return errors.New("machines in Google's cloud are left out of this build of Caddy")
}
