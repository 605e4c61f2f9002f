"""Inpainting: mined boxes of real images are repainted."""
