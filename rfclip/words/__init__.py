"""What is asked for: vocabularies, and words typed on a command line."""
