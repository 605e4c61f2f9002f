"""Filters: they judge candidates, each verdict with score, threshold and reason."""
