"""``python tools/anchors.py …`` is ``yolite anchors …``."""

import sys

from yolite.cli import main

if __name__ == "__main__":
    sys.exit(main(["anchors", *sys.argv[1:]]))
