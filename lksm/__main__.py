"""`python -m lksm` is `lksm`."""

import sys

from .cli import main

if __name__ == "__main__":  # untested: nobody imports it
    sys.exit(main())
