"""The agent's side of the conversation with a hub, behind `atp.ATPClient`.

`frames`, `handshake`, `outbox`, `inbox`, `session` and `receiving` are sans-I/O: bytes and values
in, bytes and events out. `link` runs them over a transport, `courier` keeps requests and their
answers together, `dispatch` and `handlers` run what the application registered.
"""

__all__: list[str] = []
