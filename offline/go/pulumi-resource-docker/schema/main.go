// Writes the Pulumi schema that the provider embeds: go run ./schema schema --skip-docs --skip-examples --out DIR
package main

import (
	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfgen"
	"github.com/terraform-providers/terraform-provider-docker/samokoder/bridge"
)

func main() {
	tfgen.Main("docker", bridge.Version, bridge.Provider())
}
