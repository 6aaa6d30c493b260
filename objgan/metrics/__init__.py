"""Held-out measures: features, statistics, number."""
