"""Generators: they draw variants of mined instances."""
