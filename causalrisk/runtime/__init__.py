"""Where and how work is done: threads and processes, memory, interruptions, files written whole."""
