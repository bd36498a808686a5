"""People: actors and their pseudonyms, the rights of officers and auditors, and API tokens."""
