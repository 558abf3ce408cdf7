"""`samokoder smoke`: whether a stack that is up does all that it is for."""
