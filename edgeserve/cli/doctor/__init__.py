"""`edgeserve doctor`: finds what is wrong here, and says what mends it."""
