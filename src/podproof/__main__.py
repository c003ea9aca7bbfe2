"""`python -m podproof`: the command, where no script of its name is installed."""

from __future__ import annotations

import sys

from podproof.cli import main

sys.exit(main())
