"""Quantization: make a model fit a machine."""
