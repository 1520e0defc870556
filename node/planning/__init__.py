"""Planning: which engines run here, and with which settings."""
