"""Demo mode: seed strings for keys, claims believed, inside one process only (protocol.md)."""

__all__: list[str] = []
