"""Engines that go away under a running hub, and a node that is frozen: what is to be expected."""
