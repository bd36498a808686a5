"""One batch of envelopes, from frames to a stored judgement."""
