"""Results of a sweep: tables, plots, exported recipes."""
