"""Drift: where what runs differs from what is declared, and how that is repaired."""
