"""`python -m trunkline.cli`, the same as `trunkline`."""

from trunkline.cli import main

if __name__ == "__main__":
    main()
