"""Lifecycle: which engines are loaded on which nodes, and when."""
