"""Data: from COCO files to shards, and from shards to batches."""
