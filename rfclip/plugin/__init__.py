"""The adapters to mmsegmentation: the segmentor, its preprocessor and what makes the import work."""
