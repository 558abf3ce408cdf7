"""The environment of a clone that a command works with: its stack file, its state, its lock, and Pulumi run on it."""
