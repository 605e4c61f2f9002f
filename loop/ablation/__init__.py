"""Ablations: arms and seeds run by Ray Tune, and their table."""
