"""Composition: virtual models, each a route over real ones."""
