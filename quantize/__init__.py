"""Make a model fit a machine."""
