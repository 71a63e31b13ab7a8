"""Makes a virtual environment, or says in one line why it cannot.

Runs on whatever Python 3 the machine has, so it uses nothing newer than 3.6.
"""

import os
import sys
from typing import NoReturn

OLDEST = (3, 11)


def refuse(reason: str) -> NoReturn:
    sys.exit("trunkline: " + reason)


def main(directory: str) -> None:
    if sys.version_info < OLDEST:
        found = "{} is {}.{}".format(sys.executable, *sys.version_info[:2])
        refuse("Python 3.11 or newer is needed, " + found + "; name another: make PYTHON=python3.12 ...")
    try:
        import ensurepip  # noqa: F401  # Debian splits it off; venv would fail later with a page of text
        import venv
    except ImportError as missing:
        cure = "on Debian and Ubuntu: apt-get install python3-venv"
        refuse("{} cannot make environments ({}); {}".format(sys.executable, missing, cure))
    if not os.path.exists(os.path.join(directory, "bin", "pip")):
        venv.EnvBuilder(with_pip=True, clear=os.path.isdir(directory)).create(directory)


if __name__ == "__main__":
    main(sys.argv[1])
