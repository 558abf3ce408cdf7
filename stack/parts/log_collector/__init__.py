"""What reads the containers' logs and sends them to the store."""
