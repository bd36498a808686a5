"""Programs that show how to use a hub; not part of the installed package."""
