"""`samokoder test-alert`: sends a test alert, and tells whether each integration delivered it."""
