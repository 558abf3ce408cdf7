"""Processes, the Docker Engine and ssh of the machine that this runs on. Uses nothing else of this repository."""
