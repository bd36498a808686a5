"""Counters, log correlation and signs of life."""
