"""Reports of a run: the table in the terminal, summary.json, contact sheets, curves, and an HTML page."""
