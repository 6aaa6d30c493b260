"""A sweep with Ray Tune: driver, trials, search, schedulers."""
