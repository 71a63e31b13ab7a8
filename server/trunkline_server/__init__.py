"""The trunkline server."""

__version__ = "0.1.0"
