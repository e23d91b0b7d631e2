"""The HTML page of a fit: its sections, plain words, verdicts and methods paragraph."""
