"""Painters fill the windows of ``actors.generators.inpaint``; one file a back-end."""
