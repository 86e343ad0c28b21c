"""The `threadko` command."""
