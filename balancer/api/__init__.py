"""HTTP API of the balancer: inference routes, admin routes, access control."""
