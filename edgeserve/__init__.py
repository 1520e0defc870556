"""Turn the small machines you own into one OpenAI-compatible llama.cpp endpoint."""

__version__ = "0.1.0"
