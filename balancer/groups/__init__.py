"""Groups: which machines serve one model together, and what to expect of them."""
