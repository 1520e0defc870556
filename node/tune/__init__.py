"""Tuning: measure an engine's settings on this machine, and keep the best."""
