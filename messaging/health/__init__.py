"""Which part of the hub works: node, workers, beat, database, layer and broker, each by itself."""
