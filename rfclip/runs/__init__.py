"""One benchmark run and what is known of it: scores, log, manifest, published numbers, tables."""
