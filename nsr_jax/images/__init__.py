"""Image files: one reader and one writer, and what they keep of the files besides the pixels."""
