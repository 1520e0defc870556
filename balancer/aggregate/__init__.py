"""From a stream back to the one body that llama.cpp would have sent without it."""
