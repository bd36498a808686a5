"""Whether an envelope may pass: policies, score and the ordered judgement."""
