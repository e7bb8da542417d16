"""``python tools/ablate.py …`` is ``yolite ablate …``."""

import sys

from yolite.cli import main

if __name__ == "__main__":
    sys.exit(main(["ablate", *sys.argv[1:]]))
