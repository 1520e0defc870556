"""Caches: what slots hold, kept on the disk and given to other nodes."""
