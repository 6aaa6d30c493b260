"""Many captions -> shards of pictures: reading, shards, and the command that resumes."""
