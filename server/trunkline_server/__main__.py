"""`python -m trunkline_server`."""

from trunkline_server.cli import main

if __name__ == "__main__":
    main()
