"""Search spaces: definition, defaults, files, checks."""
