"""`samokoder test-alert`: whether what AlertManager sends reaches a person."""
