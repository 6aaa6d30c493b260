"""Retraining of the best trial with other seeds, the verdict, and promotion to the registry."""
