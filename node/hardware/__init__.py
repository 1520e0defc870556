"""Hardware: what this machine is, and how much of it we may use."""
