"""Where things run: Ray, placement, and launching and resuming trainings."""
