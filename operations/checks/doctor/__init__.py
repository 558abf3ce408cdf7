"""`samokoder doctor`: whether an environment can be brought up, and after that whether it was."""
