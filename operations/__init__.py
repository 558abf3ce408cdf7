"""The `samokoder` command: bring an environment up, look after it, take it down."""
