"""``python -m torchless``: the same program as the command ``torchless``."""

from __future__ import annotations

import sys

from torchless.cli import main

if __name__ == "__main__":
    sys.exit(main())
