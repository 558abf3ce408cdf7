"""The revisions: numbered, since whoever compares two of them has to see which one is newer."""
