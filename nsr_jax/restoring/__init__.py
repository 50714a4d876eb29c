"""Restoring image files of any size."""
