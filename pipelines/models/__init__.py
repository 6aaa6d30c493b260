"""Finished models: generation from captions, and the MLflow registry."""

CHAMPION = "champion"
"""Alias of the version that commands use by default; only `promote` moves it."""
