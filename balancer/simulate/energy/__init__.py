"""Simulation of watts: a day with each preference, and with machines that sleep."""
