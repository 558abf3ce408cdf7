"""cAdvisor: the containers."""
