"""The catalogue of models and what is installed (L1)."""
