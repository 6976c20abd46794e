"""``python -m fraudsdk_sidecar``."""

from __future__ import annotations

import sys

from fraudsdk_sidecar.app import main

if __name__ == "__main__":
    sys.exit(main())
