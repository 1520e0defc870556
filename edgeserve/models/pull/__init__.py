"""Pulling models: from the hub, from the web, from a path, into the models folder."""
