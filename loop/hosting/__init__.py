"""Hosting: Ray, placement, and launching and resuming trainings."""
