"""Documents, search, quotes and intents (L1)."""
