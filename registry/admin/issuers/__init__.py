"""Issuers and their keys in the admin."""
