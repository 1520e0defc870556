"""Models: GGUF files, their facts, names and sizes."""
