"""The admin pages of issuers and their keys."""
