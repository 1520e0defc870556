"""States: what nodes have saved of slots, and when moving it pays."""
