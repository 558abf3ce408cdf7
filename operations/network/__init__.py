"""The networks of an environment, and the packet filter of its host."""
