// Package ext takes the place of a module that Traefik has in a folder of its own repository, and no proxy has.
// Traefik embeds these two types in its configuration; they hold nothing.
package ext

// HTTP is what may be added to the configuration of HTTP.
type HTTP struct{}

// Router is what may be added to a router.
type Router struct{}
