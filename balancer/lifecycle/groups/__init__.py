"""Groups that are formed when requests, or an admin, ask for their model."""
