"""What some tests of quantize need."""

import importlib.util

import pytest

EXTRA = ("llama_cpp", "matplotlib")

library = pytest.mark.skipif(
    None in map(importlib.util.find_spec, EXTRA),
    reason="needs the extra [quantize], which has to be compiled: make check-quantize",
)
