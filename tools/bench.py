"""``python tools/bench.py …`` is ``yolite bench …``."""

import sys

from yolite.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
