// Package kubernetes takes the place of Prometheus' discovery of Kubernetes, with which promtool compiles all of
// k8s.io/client-go. Nothing here registers it, as nothing registers it in the server, so no configuration has one.
package kubernetes

import (
	"github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/discovery"
)

// SDConfig has what promtool looks at.
type SDConfig struct {
	discovery.Config

	HTTPClientConfig config.HTTPClientConfig
}
