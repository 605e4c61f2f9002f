"""Components of the loop as plain classes: detectors, generators, filters, and the vocabulary they share."""
