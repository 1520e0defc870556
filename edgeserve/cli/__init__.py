"""Command line: the `edgeserve` command and its sub-commands."""
