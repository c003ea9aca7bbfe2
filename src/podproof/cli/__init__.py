"""The `podproof` command."""
