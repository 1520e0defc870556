"""Parts of what nodes report: their machines."""
