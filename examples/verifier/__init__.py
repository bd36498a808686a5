"""A verifier of exported trails, written from the documented rules alone.

It uses no code of the hub and no database: only Python, `rfc8785`, `PyJWT` and `cryptography`. Read
it beside docs/protocol.md#entries-of-the-trail. `python -m examples.verifier trail.ndjson` checks
an export (`format=ndjson`, `order=oldest`) that begins with entry 0.
"""
