"""`python -m offramp`."""

from __future__ import annotations

import sys

from offramp.cli.main import main

sys.exit(main())
