"""Engine build: compile llama.cpp for this machine."""
