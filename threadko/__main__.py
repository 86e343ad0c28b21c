"""`python -m threadko` is the `threadko` command."""

from threadko.cli.main import main

main()
