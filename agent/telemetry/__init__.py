"""Metrics and the journal of events (L1)."""
