"""``python -m asm_libcalls``."""

import sys

from asm_libcalls.cli import main

if __name__ == "__main__":
    sys.exit(main())
