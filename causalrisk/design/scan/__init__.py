"""Data beyond memory: read block by block, as often as a fit needs them, and never kept."""
