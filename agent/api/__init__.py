"""The HTTP API (L3)."""
