"""Restoring image files of any size, with the weights that come with the package."""
