"""Worker: the child process that runs llama.cpp's library."""
