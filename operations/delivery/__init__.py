"""Deploys of images and commits: `samokoder deploy`, `rollback`, and what CI runs."""
