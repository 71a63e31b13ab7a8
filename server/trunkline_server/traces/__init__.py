"""The records of calls: how they are kept, delivered to backends, and read."""
