"""Dense embeddings become labels: windows, prior, refiners, thresholds."""
