"""Building blocks shared by the generators that fit a diffusion model."""
