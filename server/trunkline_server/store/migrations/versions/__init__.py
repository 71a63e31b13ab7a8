"""One module a step; the newest is what `tables` says."""
