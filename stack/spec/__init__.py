"""What a part is, in plain values: nothing here imports Pulumi."""
