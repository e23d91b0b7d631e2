"""Text, HTML, LaTeX and CSV renderings of results."""
