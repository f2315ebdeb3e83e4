"""Asking the cloud: what leaves the device, over which path, and what waits for a line."""
