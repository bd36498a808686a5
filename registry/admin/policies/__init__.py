"""The admin pages of policies: pages, forms, and rules in words."""
