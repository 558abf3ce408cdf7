"""VictoriaLogs: the store in which the logs of all containers are searched."""
