"""Restore: the content of a data volume is replaced, and what was in it is set aside."""
