"""What a user touches: models, results, comparisons."""
