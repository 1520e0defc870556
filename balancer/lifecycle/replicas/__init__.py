"""Replicas: how many engines of a model the fleet shall have, and what is missing."""
