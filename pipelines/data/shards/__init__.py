"""Prepared data on the disk: the format of shards, the index, masks, pixels."""
