"""``featviz models`` and ``featviz layers``."""

from __future__ import annotations

import dataclasses
import json

import click

import featviz as fv
from featviz.cli import options


@click.command(cls=options.Command, context_settings=options.CONTEXT)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def models(as_json: bool) -> None:
    """List the available networks, and how to install those that are missing."""
    entries = fv.models()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(e) for e in entries], indent=1))
        return
    click.echo(repr(entries))


@click.command(cls=options.Command, context_settings=options.CONTEXT)
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def layers(model: str, as_json: bool) -> None:
    """List the layers that MODEL runs: name, type, output shape per sample, units."""
    loaded = fv.load(model)
    table = loaded.layers()
    if as_json:
        rows = [
            {
                "name": i.name,
                "type": i.type,
                "shape": list(i.shape),
                "units": i.units,
                "calls": i.calls,
            }
            for i in table
        ]
        document = {"model": model, "size": list(loaded.size), "layers": rows}
        click.echo(json.dumps(document, indent=1))
        return
    click.echo(str(table))
