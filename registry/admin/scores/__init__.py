"""The admin pages of scores, violations and the scoring profile."""
