"""MLflow: the store, the runs of a loop in it, and what waits until the store can be reached."""
