"""`python -m vitriad` is the `vitriad` command."""

import sys

from vitriad.cli import main

sys.exit(main())
