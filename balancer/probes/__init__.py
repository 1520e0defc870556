"""Probes: small requests of our own that test engines."""
