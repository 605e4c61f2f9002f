"""Questions about the labels of a data set, asked by detectors and refiners that were not trained on the image."""
