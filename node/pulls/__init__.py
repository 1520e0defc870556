"""Pulls: models that this node fetches, from other nodes or from the internet."""
