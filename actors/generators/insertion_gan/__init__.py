"""DetectorGAN: a GAN inserts objects into images without them, with the detector in its training loop."""
