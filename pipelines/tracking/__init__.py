"""Tracking with MLflow, and the queue of events for the time when it is not reachable."""
