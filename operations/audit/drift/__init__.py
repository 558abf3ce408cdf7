"""Drift: where what runs differs from what is declared, and how it is put right."""
