"""Energy: which machines sleep while nothing needs them, and what wakes them."""
