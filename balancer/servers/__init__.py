"""Servers that are no nodes, such as vLLM and Ollama, as members of the fleet."""
