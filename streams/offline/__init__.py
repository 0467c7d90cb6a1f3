"""Features offline: from files, with the kernels and the order of the stream; and what was logged beside them."""
