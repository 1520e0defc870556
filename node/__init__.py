"""The node: the agent on every machine that holds models."""
