"""Where a call goes: names to targets, which of them is tried first, and when another one is."""
