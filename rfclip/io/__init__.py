"""Images, videos, fonts, caches and files: what knows nothing of the method."""
