"""Restore: replace the content of a data volume, and set the earlier content aside."""
