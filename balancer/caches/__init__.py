"""Caches that travel: which states nodes keep, and moving them between nodes."""
