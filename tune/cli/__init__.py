"""The commands of `python -m tune` and their options."""
