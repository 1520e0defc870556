"""What some tests of quantize cannot do without."""

import importlib.util

import pytest

library = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None,
    reason="needs llama-cpp-python, which compiles for 10 minutes: make check-quantize",
)
