"""The trail's entries as bytes: the content that is hashed, and how a reader checks it."""
