"""``python tools/runs.py …`` is ``yolite runs …``."""

import sys

from yolite.cli import main

if __name__ == "__main__":
    sys.exit(main(["runs", *sys.argv[1:]]))
