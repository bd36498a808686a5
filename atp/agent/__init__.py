"""The agent's side of the conversation with a hub, behind `atp.ATPClient`.

`handshake`, `outbox`, `inbox`, `session` and `receiving` do no I/O: they take bytes and values and
return bytes and events. `link` runs them over a transport, `courier` matches requests with their
answers, `dispatch` and `handlers` run the handlers that the application registered.
"""

__all__: list[str] = []
