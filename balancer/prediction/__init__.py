"""Prediction: how long each engine would take for a request. Pure."""
