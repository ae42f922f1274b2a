"""`python -m speceyes_lib` is the command `speceyes`."""

import sys

from .workflow.cli import main

if __name__ == "__main__":
    sys.exit(main())
