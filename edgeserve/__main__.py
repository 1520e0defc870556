"""`python -m edgeserve` is the `edgeserve` command."""

from edgeserve.cli.main import main

main()
