"""From evidence to a confidence and a route (L1)."""
