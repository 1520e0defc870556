"""HTTP server: one port, its connections, requests and responses."""
