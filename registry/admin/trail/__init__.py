"""The admin pages of the trail."""
