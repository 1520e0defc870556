"""Autoscaling: how many replicas each model has, by how long its requests wait."""
