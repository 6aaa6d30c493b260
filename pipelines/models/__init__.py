"""Finished models: generation from captions, and the MLflow registry."""
