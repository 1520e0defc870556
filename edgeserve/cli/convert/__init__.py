"""Conversion: make a GGUF from a Hugging Face folder, with llama.cpp's converter."""
