"""Servers of other programs on this machine: find them, lend them to the fleet."""
