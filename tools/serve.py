"""``python tools/serve.py …`` is ``yolite serve …``."""

import sys

from yolite.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
