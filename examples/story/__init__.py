"""The story that make demo tells on a running hub."""
