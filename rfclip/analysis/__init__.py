"""The paper's tables and observations, and reports about backbones and vocabularies."""
