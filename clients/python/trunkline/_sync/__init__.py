# Written by tools/unasync.py from trunkline/_async/__init__.py: change that file, then `make generate`.
"""The asynchronous client, and the source of the blocking one."""
