// Package kubernetes takes the place of buildx' driver of Kubernetes, with which the provider compiles k8s.io/client-go.
// It registers no driver; the provider builds on the Docker engine.
package kubernetes
