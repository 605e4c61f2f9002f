"""Data in and out: folder formats, splits, and the embedded data set."""
