"""Starts the kernel. Kept tiny: Python compiles a script anew at every start."""

import sys

# sys.path[0] is this file's folder: the program is imported from there, and nothing in the
# working directory can stand in for a module that it needs.
from caesarion_kernel import main

main.run(int(sys.argv[1]), sys.argv[2].split(",") if len(sys.argv) > 2 else [])
