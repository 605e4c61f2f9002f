"""SSD-Det: inaccurate boxes are refined by multiple-instance learning over bags of proposals around them."""
