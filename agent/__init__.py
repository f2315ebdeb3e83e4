"""Outpost: an on-device inference agent.

Layers, imports run downwards only: daemon and cli (L4), api (L3), assistant (L2), the capabilities engines, knowledge,
confidence, escalation, updates and telemetry (L1, which do not know each other), and the vocabulary errors, messages,
config and paths (L0). ``tests/test_layers.py`` enforces it.
"""

__version__ = "0.1.0"
