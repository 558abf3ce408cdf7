"""`samokoder doctor`: whether an environment can be brought up, and whether `up` succeeded."""
