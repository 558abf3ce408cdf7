// What the rest of the Pulumi command asks of `pulumi api`, which talks to Pulumi Cloud and is a quarter of the build.
package cloud

import (
	"errors"

	"github.com/spf13/cobra"
)

// APIError is what `pulumi api` would end with. Nothing here makes one.
type APIError struct {
	ExitCode int
	Silent   bool
}

func (e *APIError) Error() string { return "pulumi api" }

// NewAPICmd gives a command that says that it is left out.
func NewAPICmd() *cobra.Command {
	return &cobra.Command{
		Use:                "api",
		Short:              "Left out of this build",
		DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("`pulumi api` is left out of this build; Pulumi's own download has it")
		},
	}
}
