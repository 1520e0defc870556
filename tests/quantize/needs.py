"""What some tests of quantize cannot do without."""

import importlib.util

import pytest

EXTRA = ("llama_cpp", "matplotlib")

library = pytest.mark.skipif(
    None in map(importlib.util.find_spec, EXTRA),
    reason="needs the extra [quantize], which has to be compiled: make check-quantize",
)
