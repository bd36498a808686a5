"""Example programs that use the protocol."""

__all__: list[str] = []
