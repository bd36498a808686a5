"""The admin pages of attestations."""
