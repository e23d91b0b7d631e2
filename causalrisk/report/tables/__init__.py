"""Tables laid out, escaped and written: text, HTML, LaTeX, Markdown, CSV and Word."""
