"""``python -m tsgu``: solve, differentiate and check; see ``python -m tsgu --help``."""

import sys

from tsgu._cli import main

if __name__ == "__main__":
    sys.exit(main())
