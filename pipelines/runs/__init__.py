"""Runs in a storage: their status, a list of them, and cleaning up after killed processes."""
