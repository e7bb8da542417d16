"""``python tools/train.py …`` is ``yolite train …``."""

import sys

from yolite.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
