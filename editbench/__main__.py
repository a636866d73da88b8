"""`python -m editbench`: the same command as `editbench`."""

import sys

from editbench.cli import main

sys.exit(main())
