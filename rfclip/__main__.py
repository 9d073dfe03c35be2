"""python -m rfclip VERB: see rfclip.cli."""

import sys

from rfclip.cli import main

if __name__ == "__main__":
    sys.exit(main())
