"""Everything signed: keys, signatures, tokens, envelopes, provenance, attestations."""
