"""The balancer: the one address that clients talk to."""
