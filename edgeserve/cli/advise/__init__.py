"""Advice: which model, engine and offload suit a machine, with the arithmetic."""
