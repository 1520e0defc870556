"""Failover: retry, resume and watch requests when engines fail."""
