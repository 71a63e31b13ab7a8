"""A page to look at the records of calls: read-only, behind the callers' keys, in a process of its own."""
