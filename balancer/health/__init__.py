"""Health: circuit breakers of engines and nodes, and whose fault a failure is."""
