"""Bring an environment up, change it, and remove it: the work around Pulumi."""
