"""The one address clients talk to."""
