"""From prepared data to batches: folder or cache, reader, order of the samples."""
