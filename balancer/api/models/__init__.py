"""Models in the HTTP API: the list for clients, the whole for admins, orders."""
