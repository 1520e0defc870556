"""The agent on every machine that holds models."""
