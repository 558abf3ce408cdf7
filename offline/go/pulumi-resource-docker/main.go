// The Pulumi resource plugin for Docker: the bridge over the Terraform provider, with the schema made at build time.
package main

import (
	_ "embed"

	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfbridge"
	"github.com/terraform-providers/terraform-provider-docker/samokoder/bridge"
)

//go:embed schema.json
var schema []byte

func main() {
	tfbridge.Main("docker", bridge.Version, bridge.Provider(), schema)
}
