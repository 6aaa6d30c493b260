"""Storage of runs: folders and buckets, checkpoints, leases, locks, retries."""
