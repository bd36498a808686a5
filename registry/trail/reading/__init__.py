"""Reads of the trail at any size: which entries match, and their members."""
