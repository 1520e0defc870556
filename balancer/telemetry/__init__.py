"""Telemetry: metrics, the log of latest requests, and traces."""
