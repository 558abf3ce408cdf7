"""Documents that follow from the code, written by `make docs`."""
