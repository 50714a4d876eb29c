"""From a network and an image of any size to a restored image."""
