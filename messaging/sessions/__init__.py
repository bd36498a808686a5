"""Sessions of agents, the leases of nodes, and who is connected."""
