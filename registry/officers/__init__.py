"""The people who decide and those who read: who acted, under which pseudonym, and what they may."""
