"""A user's own files, outside the package: plug-ins, and photographs."""
