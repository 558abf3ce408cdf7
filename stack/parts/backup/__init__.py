"""The backup server, the drill and the workspace."""
