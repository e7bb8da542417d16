"""``python tools/import.py …`` is ``yolite import …``."""

import sys

from yolite.cli import main

if __name__ == "__main__":
    sys.exit(main(["import", *sys.argv[1:]]))
