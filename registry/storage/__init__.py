"""How rows are written in bulk and read in few round trips."""
