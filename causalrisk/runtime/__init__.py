"""Where and how work is done: threads and processes, memory, files written whole."""
