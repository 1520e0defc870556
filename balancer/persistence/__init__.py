"""Persistence: what outlives one balancer process."""
