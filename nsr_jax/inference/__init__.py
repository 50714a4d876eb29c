"""Restoring an image of any size by a network."""
