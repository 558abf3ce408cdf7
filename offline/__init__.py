"""Brings the stack up on a host that reaches package registries only: no container registry, no download sites."""
