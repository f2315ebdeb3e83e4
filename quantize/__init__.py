"""Workstation side: turning source models into the builds that devices run."""
