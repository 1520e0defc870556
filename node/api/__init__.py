"""HTTP API of the node: inference routes and admin routes."""
