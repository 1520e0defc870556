"""Carry requests and answers between a client and an upstream."""
