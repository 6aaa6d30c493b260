"""Jobs on a cluster: package, checks before the start, submission, logs, status, stop."""
