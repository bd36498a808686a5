"""Programs that show the protocol at work."""

__all__: list[str] = []
