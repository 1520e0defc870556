"""`python -m edgeserve` is the `edgeserve` command."""

from edgeserve.cli import main

main()
