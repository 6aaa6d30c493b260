"""Submitting command lines of this repository to a Ray cluster. Nothing is here yet: see cluster/README.md."""
