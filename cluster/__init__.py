"""Jobs on a Ray cluster, and the files a cluster starts from. Imports only light modules of the other packages."""
