// Package bridge says how the Terraform provider for random values appears to Pulumi programs.
//
// What is secret (a password's result, its hash, the bytes) follows from the Terraform schema's "sensitive".
package bridge

import (
	"context"
	"errors"

	pf "github.com/pulumi/pulumi-terraform-bridge/v3/pkg/pf/tfbridge"
	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfbridge"
	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfbridge/tokens"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/terraform-providers/terraform-provider-random/internal/provider"
)

// Version is the pulumi-random SDK's version that this provider answers to.
const Version = "4.21.4"

// Provider returns the mapping of the Terraform provider's resources.
func Provider() tfbridge.ProviderInfo {
	info := tfbridge.ProviderInfo{
		P:                           pf.ShimProvider(provider.New()),
		Name:                        "random",
		Version:                     Version,
		MetadataInfo:                tfbridge.NewProviderMetadata([]byte("{}")),
		EnableAccurateBridgePreview: true,
		Resources: map[string]*tfbridge.ResourceInfo{
			// The Terraform resource has no id of its own; the published provider uses its value.
			"random_bytes": {ComputeID: bytesID},
		},
	}
	info.MustComputeTokens(tokens.SingleModule("random_", "index", func(module, name string) (string, error) {
		return tokens.MakeStandard("random")(module, "Random"+name)
	}))
	return info
}

func bytesID(_ context.Context, state resource.PropertyMap) (resource.ID, error) {
	value := state["base64"]
	if value.IsSecret() {
		value = value.SecretValue().Element
	}
	if !value.IsString() {
		return "", errors.New("random_bytes has no base64 text in its state")
	}
	return resource.ID(value.StringValue()), nil
}
