"""Restoring images that someone has: any file, any size, with weights that come with the package."""
