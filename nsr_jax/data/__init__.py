"""Images, TFDS builders, the resident image store and the sampling of patches."""
