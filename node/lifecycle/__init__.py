"""Lifecycle: loads and unloads engines, and decides which of them are in memory."""
