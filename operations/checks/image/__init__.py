"""`samokoder check-image`: whether an image keeps the contract."""
