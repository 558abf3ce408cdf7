package v1

import (
	"log/slog"
	"net/http"
)

// OpenAPIOptions is what the server says about itself in the description that is left out.
type OpenAPIOptions struct {
	IncludePaths   []string
	ExternalURL    string
	Version        string
	MaxSearchLimit int
}

// OpenAPIBuilder takes the place of the one that describes the API: libopenapi is a quarter of Prometheus' build.
type OpenAPIBuilder struct{}

// NewOpenAPIBuilder gives the builder of no description.
func NewOpenAPIBuilder(OpenAPIOptions, *slog.Logger) *OpenAPIBuilder { return &OpenAPIBuilder{} }

// WrapHandler leaves a handler as it is.
func (*OpenAPIBuilder) WrapHandler(next http.HandlerFunc) http.HandlerFunc { return next }

// ServeOpenAPI says that the description is left out.
func (*OpenAPIBuilder) ServeOpenAPI(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "The description of the API is left out of this build of Prometheus.", http.StatusNotFound)
}
