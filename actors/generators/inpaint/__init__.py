"""Inpainting: mined boxes of real images painted anew."""
