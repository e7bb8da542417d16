"""``python tools/evaluate.py …`` is ``yolite evaluate …``."""

import sys

from yolite.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
