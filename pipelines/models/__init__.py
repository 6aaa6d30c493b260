"""Finished models: generation from captions, and the MLflow registry."""

CHAMPION = "champion"
"""Alias of the version that commands use by default; only `promote` moves it."""

STATUS, PENDING = "validation_status", "pending"
"""Tag of a version, and its value before `promote`, which sets passed, forced, failed or rolled back."""
