"""Import of the data of a stack that Docker Compose made."""
