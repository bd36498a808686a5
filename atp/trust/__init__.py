"""Who signed what: keys, signatures, tokens, envelopes, provenance, attestations."""
