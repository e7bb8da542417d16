"""``python tools/tune.py …`` is ``yolite tune …``."""

import sys

from yolite.cli import main

if __name__ == "__main__":
    sys.exit(main(["tune", *sys.argv[1:]]))
