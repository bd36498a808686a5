"""Scores, violations and the scoring profile in the admin."""
