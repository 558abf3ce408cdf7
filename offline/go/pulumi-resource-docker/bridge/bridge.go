// Package bridge says how the Terraform provider for Docker appears to Pulumi programs.
//
// Only names are decided here: they are those of the published pulumi-docker SDK, which the stack imports.
// docker:index:Image (the SDK's own image builder) is no part of the bridged provider and is left out; images are
// built with RemoteImage's `build`.
package bridge

import (
	"strings"

	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfbridge"
	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfbridge/tokens"
	shimv2 "github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfshim/sdk-v2"
	"github.com/terraform-providers/terraform-provider-docker/internal/provider"
)

// Version is the pulumi-docker SDK's version that this provider answers to.
const Version = "5.2.0"

// renamed holds the names that do not follow from the Terraform name.
var renamed = map[string]string{"Config": "ServiceConfig", "Image": "RemoteImage", "getImage": "getRemoteImage"}

func token(module, name string) (string, error) {
	if pulumiName, ok := renamed[name]; ok {
		name = pulumiName
	}
	return tokens.MakeStandard("docker")(module, name)
}

// Provider returns the mapping of the Terraform provider's resources and data sources.
func Provider() tfbridge.ProviderInfo {
	singular := func(name string) *tfbridge.SchemaInfo { return &tfbridge.SchemaInfo{Name: name} }
	info := tfbridge.ProviderInfo{
		P:       shimv2.NewProvider(provider.New(Version)()),
		Name:    "docker",
		Version: Version,
		Config: map[string]*tfbridge.SchemaInfo{
			"host": {Default: &tfbridge.DefaultInfo{
				Value: "unix:///var/run/docker.sock", EnvVars: []string{"DOCKER_HOST"},
			}},
			"registry_auth": singular("registryAuth"),
		},
		Resources: map[string]*tfbridge.ResourceInfo{
			"docker_container": {
				// A container's name and host ports are taken until the old container is gone.
				DeleteBeforeReplace: true,
				Fields: map[string]*tfbridge.SchemaInfo{
					"command":           singular("command"),
					"networks_advanced": singular("networksAdvanced"),
				},
			},
			// An image's name is its reference, so it must not get a random suffix.
			"docker_image": {Fields: map[string]*tfbridge.SchemaInfo{"name": singular("name")}},
		},
	}
	info.MustComputeTokens(tokens.SingleModule("docker_", "index", func(module, name string) (string, error) {
		return token(module, strings.TrimPrefix(name, "docker_"))
	}))
	info.SetAutonaming(255, "-")
	return info
}
