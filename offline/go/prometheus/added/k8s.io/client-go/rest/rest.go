// Package rest takes the place of the client of Kubernetes, which Prometheus has for its warnings about old versions.
package rest

import "context"

// WarningHandlerWithContext is told a warning.
type WarningHandlerWithContext interface {
	HandleWarningHeaderWithContext(ctx context.Context, code int, agent, text string)
}

// WarningLogger writes nothing: no client is there that could be warned.
type WarningLogger struct{}

// HandleWarningHeaderWithContext does nothing.
func (WarningLogger) HandleWarningHeaderWithContext(context.Context, int, string, string) {}

// SetDefaultWarningHandlerWithContext does nothing.
func SetDefaultWarningHandlerWithContext(WarningHandlerWithContext) {}
