"""`python -m count_clip` is the command `count-clip`."""
# PYTHON_ARGCOMPLETE_OK

import sys

from .cli import run


if __name__ == "__main__":
    sys.exit(run())
