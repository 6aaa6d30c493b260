"""What a sweep is, and what it stores: specification, results, trials, tracking."""
