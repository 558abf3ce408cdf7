"""`samokoder smoke`: whether a stack that is up does its work."""
