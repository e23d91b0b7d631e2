"""Data beyond memory: read block by block, coded once, and kept in memory or in a file where there is room."""
