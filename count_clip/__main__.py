"""`python -m count_clip` is the command `count-clip`."""
# PYTHON_ARGCOMPLETE_OK

import sys

from count_clip.cli import main


if __name__ == "__main__":
    sys.exit(main())
