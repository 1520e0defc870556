"""Models on this node: which files there are, and which are served."""
