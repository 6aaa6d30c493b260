"""Jobs on a Ray cluster, and the files a cluster starts from. Deals in command lines: imports nothing of ours."""
