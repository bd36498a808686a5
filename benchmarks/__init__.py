"""Benchmarks: each figure is compared with a yardstick from the same run (`make bench`)."""
