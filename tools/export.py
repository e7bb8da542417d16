"""``python tools/export.py …`` is ``yolite export …``."""

import sys

from yolite.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
