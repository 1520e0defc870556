"""Fleet membership: nodes, their engines, and the fleet as it is now."""
