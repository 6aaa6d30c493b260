"""`render`: the files that a cluster starts from, from one tree of settings."""
