"""Numbers without a treatment in them: linear algebra, Newton, scipy's optimisers, families, random draws, workers."""
