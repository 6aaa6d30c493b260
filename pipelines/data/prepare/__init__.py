"""`prepare`: COCO files to shards."""
