"""Programs that show the hub at work; not part of the installed package."""
