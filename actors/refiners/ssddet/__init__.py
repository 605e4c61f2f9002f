"""SSD-Det (ICCV 2023, arXiv 2307.12101): inaccurate boxes are refined by multiple-instance learning over bags."""
