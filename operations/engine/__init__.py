"""The engine that an environment runs on: its containers, volumes and images, and commands in them."""
