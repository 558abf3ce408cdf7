"""Rotation of the generated secrets."""
