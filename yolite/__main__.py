"""``python -m yolite`` is ``yolite``."""

import sys

from yolite.cli import main

if __name__ == "__main__":
    sys.exit(main())
