"""The guard: a round's detector is chosen on training images alone, so that a bad pool does not harm."""
