"""The public entry."""
