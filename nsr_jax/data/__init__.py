"""Image sources, TFDS builders, the image store and the sampling of patches."""
