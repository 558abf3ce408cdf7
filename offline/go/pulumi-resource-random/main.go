// The Pulumi resource plugin for random values: the bridge over the Terraform provider, with the schema made at build
// time.
package main

import (
	"context"
	_ "embed"

	pf "github.com/pulumi/pulumi-terraform-bridge/v3/pkg/pf/tfbridge"
	"github.com/terraform-providers/terraform-provider-random/samokoder/bridge"
)

//go:embed schema.json
var schema []byte

func main() {
	pf.Main(context.Background(), "random", bridge.Provider(), pf.ProviderMetadata{PackageSchema: schema})
}
