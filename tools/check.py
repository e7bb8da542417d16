"""``python tools/check.py …`` is ``yolite check …``."""

import sys

from yolite.cli import main

if __name__ == "__main__":
    sys.exit(main(["check", *sys.argv[1:]]))
