"""An environment comes up, changes, and goes: what happens around Pulumi."""
