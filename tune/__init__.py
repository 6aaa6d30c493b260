"""Sweeps over the settings of every stage with Ray Tune: see tune/README.md."""
