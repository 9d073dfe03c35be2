"""The data sets on disk: configs and options, dataset classes, checks."""
