"""Repair of what does not start, or answers wrongly."""
