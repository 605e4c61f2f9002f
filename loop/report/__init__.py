"""What a run shows: the table in the terminal, summary.json, contact sheets, curves, and a page that holds them all."""
