"""The trail's entries as bytes: what is hashed, and how a reader checks it."""
