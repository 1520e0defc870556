"""Routing: choose the engine for each request. Pure decisions."""
