"""``python -m ttm.cli``: the same as ``ttm``."""

import sys

from ttm.cli import main

sys.exit(main())
