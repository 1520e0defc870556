"""Supervision: keep engines running, and notice those that hang."""
