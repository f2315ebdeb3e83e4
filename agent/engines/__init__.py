"""Engines that run models, each in a child process of its own (L1)."""
