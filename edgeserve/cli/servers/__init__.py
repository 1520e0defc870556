"""The commands for servers of other programs."""
