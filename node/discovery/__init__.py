"""Discovery: make this node known to balancers, under an id of its own."""
