"""``featviz view``."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path

import click

from featviz.cli import options


@click.command(cls=options.Command, context_settings=options.CONTEXT)
@click.argument("url", metavar="DIR")
@click.option(
    "--open/--no-open",
    "show",
    default=None,
    help="Open the pages in the web browser. Default: only in a terminal.",
)
@options.quiet
def view(url: str, show: bool | None) -> None:
    r"""Write pages for browsing the atlas in DIR, a folder or a URL.

    They are plain files, DIR/index.html and DIR/site: no server is needed.

    \b
    featviz view atlas/
    featviz view s3://bucket/atlas --no-open
    """
    from featviz import atlases

    page = atlases.view(url, progress=options.progress())
    options.echo(page)
    path = Path(page)
    if show is None:
        show = sys.stdin.isatty() and sys.stdout.isatty()
    if show and path.is_file():
        webbrowser.open(path.resolve().as_uri())
