"""The parts, a folder each: what it is, its alert rules, its dashboard, and what only it has."""
