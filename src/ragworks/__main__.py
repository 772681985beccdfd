"""``python -m ragworks`` is ``ragworks``."""

import sys

from ragworks.cli import main

if __name__ == "__main__":
    sys.exit(main())
