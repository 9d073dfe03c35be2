"""The second tower: vision models that see and do not read, from a name or a file, with their accessors."""
