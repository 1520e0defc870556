"""`edgeserve models group`: one model over several nodes."""
