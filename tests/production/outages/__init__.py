"""Tests of outages: engines stop under a running hub, and a node is frozen."""
