"""The libvips library, set up for this package; import it only from here."""

import os

# Its warnings about unknown tags name no file, and errors are raised anyway. Warnings would be printed, or handed to
# pyvips, which fails on those that are not in UTF-8. libvips reads this when it is loaded.
os.environ.setdefault('VIPS_WARNING', 'none')

import pyvips

__all__ = ['pyvips']

pyvips._remove_log_handler()
pyvips.cache_set_max(0)  # or it would keep the images of its last operations
