"""Ollama's API: its requests become OpenAI's at the edge, and answers its own again."""
