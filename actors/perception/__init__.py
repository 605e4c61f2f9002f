"""What the detector perceives of an instance."""
