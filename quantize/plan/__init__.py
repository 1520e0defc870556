"""Quantization plan: which variants a model can have, and where each fits."""
