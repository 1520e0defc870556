"""Clients: their keys, what each key may do, and what each has used."""
