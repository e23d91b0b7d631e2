"""`python -m causalrisk`."""

import sys

from causalrisk.cli import main

if __name__ == "__main__":
    sys.exit(main())
