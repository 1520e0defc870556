"""Groups: one model over several machines, by llama.cpp's RPC backend."""
