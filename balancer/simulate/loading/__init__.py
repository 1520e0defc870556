"""Simulator of loads: engines come and go in virtual time, by several rules."""
