"""Measures of a finished model on held-out data, and the judges that they use."""
