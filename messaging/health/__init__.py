"""The state of each part of the hub: node, workers, beat, database, layer and broker."""
