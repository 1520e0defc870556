"""Nodes: the table that `edgeserve nodes` shows."""
