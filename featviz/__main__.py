"""``python -m featviz`` is the command line."""

import sys

from featviz.cli.main import main

sys.exit(main())
