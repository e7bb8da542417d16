"""``python tools/summary.py …`` is ``yolite summary …``."""

import sys

from yolite.cli import main

if __name__ == "__main__":
    sys.exit(main(["summary", *sys.argv[1:]]))
