"""The trail in the admin."""
