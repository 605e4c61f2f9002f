"""The crop painter: a small diffusion model in pixel space, fitted on the crops of a run."""
