"""Sweeps over the settings of every stage with Ray Tune. Nothing is here yet: see tune/README.md."""
