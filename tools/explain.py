"""``python tools/explain.py …`` is ``yolite explain …``."""

import sys

from yolite.cli import main

if __name__ == "__main__":
    sys.exit(main(["explain", *sys.argv[1:]]))
