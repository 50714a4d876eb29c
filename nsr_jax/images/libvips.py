"""The libvips library, set up for this package; to be imported from here alone."""

import os

# Its warnings, of tags that it does not know, name no file; what fails is raised. They would be printed, or handed to
# pyvips, which stumbles over those that are not in UTF-8. libvips looks at this when it is loaded.
os.environ.setdefault('VIPS_WARNING', 'none')

import pyvips

__all__ = ['pyvips']

pyvips._remove_log_handler()
pyvips.cache_set_max(0)  # it would keep what its last operations read
