"""Worker: the child process in which llama.cpp's library runs."""
