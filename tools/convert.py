"""``python tools/convert.py …`` is ``yolite convert …``."""

import sys

from yolite.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
