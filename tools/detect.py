"""``python tools/detect.py …`` is ``yolite detect …``."""

import sys

from yolite.cli import main

if __name__ == "__main__":
    sys.exit(main(["detect", *sys.argv[1:]]))
