"""A name or a file becomes a checked CLIP: its image tower in pieces, its text tower, its weights."""
