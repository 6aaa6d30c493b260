"""The commands of `python -m pipelines` and their options."""
