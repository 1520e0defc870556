"""Validation: what a request may ask, checked before an engine sees it. Pure."""
