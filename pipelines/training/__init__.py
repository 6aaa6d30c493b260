"""Training of one stage with Ray Train: job, driver, worker, supervision, reporting."""
