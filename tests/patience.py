"""How long tests wait for what must happen; never a promise of speed."""

from __future__ import annotations

PATIENCE = 90.0
"""Seconds any single wait may take before it counts as hanging."""
