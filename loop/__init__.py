"""The loop: what happens in which order, on which data, recorded where."""
