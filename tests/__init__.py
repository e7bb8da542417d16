"""The tests; what follows must be set before torch is imported."""

import os

# The bits of a sum depend on the number of threads: one number, here and in the programs that tests start. It is 1, as
# pytest's own processes (pytest-xdist) already take every core.
os.environ["OMP_NUM_THREADS"] = "1"
# Threads that wait by spinning make a busy machine many times slower.
os.environ["OMP_WAIT_POLICY"] = "passive"
