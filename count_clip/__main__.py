"""`python -m count_clip` is the command `count-clip`."""

import sys

from count_clip.cli import main


if __name__ == "__main__":
    sys.exit(main())
