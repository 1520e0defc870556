"""Engines: llama.cpp servers as child processes, two kinds behind one protocol."""
