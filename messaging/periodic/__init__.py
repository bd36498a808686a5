"""What runs in the background: what is scheduled, how it went, and when it is due."""
