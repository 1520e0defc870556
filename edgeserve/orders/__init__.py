"""Orders: what a balancer asks of nodes beside requests, and what they report of it."""
