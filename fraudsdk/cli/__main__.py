"""``python -m fraudsdk.cli``."""

import sys

from fraudsdk.cli.app import main

sys.exit(main())
