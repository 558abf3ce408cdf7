"""A small application with the traits of the owner's: see `settings.py`."""
