"""The description of a part in plain values: nothing here imports Pulumi."""
