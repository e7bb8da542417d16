"""``python tools/compare.py …`` is ``yolite compare …``."""

import sys

from yolite.cli import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
