"""The trunkline server."""

import os

__version__ = "0.1.0"

# What gRPC remarks on its connections would go between the lines of the log. It looks here when it is loaded.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
