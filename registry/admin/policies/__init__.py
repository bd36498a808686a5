"""Policies in the admin: their pages, forms and wording."""
