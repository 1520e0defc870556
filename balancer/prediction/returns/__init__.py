"""Returns: when conversations go on, and whether they do. Pure."""
