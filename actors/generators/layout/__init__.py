"""Layout-to-image generation conditioned on difficulty."""
