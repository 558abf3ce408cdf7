"""Checks of an environment and of an image, and their one report."""
