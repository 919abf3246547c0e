"""``python -m featviz`` is the command line."""

from featviz.cli.main import run

run()
