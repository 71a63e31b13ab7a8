"""Makes a virtual environment, or says in one line why it cannot.

Runs on whatever Python the machine has, so it uses nothing newer than 3.6.
"""

import os
import sys

OLDEST = (3, 11)


def refuse(reason):
    sys.exit("trunkline: " + reason)


def main(directory):
    if sys.version_info < OLDEST:
        refuse(
            "Python 3.11 or newer is needed, {} is {}.{}; name another with `make PYTHON=python3.12 ...`".format(
                sys.executable, *sys.version_info[:2]
            )
        )
    try:
        import ensurepip  # noqa: F401  # Debian splits it off; venv would fail later with a page of text
        import venv
    except ImportError as missing:
        refuse(
            "{} cannot make environments ({}); on Debian and Ubuntu: apt-get install python3-venv".format(
                sys.executable, missing
            )
        )
    if os.path.exists(os.path.join(directory, "bin", "pip")):
        return
    venv.EnvBuilder(with_pip=True, clear=os.path.isdir(directory)).create(directory)


if __name__ == "__main__":
    main(sys.argv[1])
