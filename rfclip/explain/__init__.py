"""Looking inside: named activations, and plots that take arrays and know no model."""
