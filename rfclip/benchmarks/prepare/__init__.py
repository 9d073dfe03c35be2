"""Putting the data sets on disk as the configs read them: label maps by look-up table, and the generated sample."""
