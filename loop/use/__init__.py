"""What follows a run: its detector is exported, detects in pictures, and is measured on the test images."""
