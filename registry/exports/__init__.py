"""Exports of any size: written to a file by a worker, with progress, and kept for a day."""
