"""A hook of mkdocs: a page of every notebook in docs/tutorials, and one of the references."""

import base64
import html
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add the page and the pictures of each notebook; notebooks themselves can be downloaded."""
    for path in sorted(Path(config.docs_dir, "tutorials").glob("*.ipynb")):
        text, pictures = page(json.loads(path.read_text()), path.stem)
        files.append(File.generated(config, f"tutorials/{path.stem}.md", content=text))
        for name, data in pictures.items():
            files.append(File.generated(config, f"tutorials/{name}", content=data))
    bibliography = Path(config.docs_dir, "references.bib").read_text()
    files.append(File.generated(config, "references.md", content=references(bibliography)))
    return files


def references(bibliography: str) -> str:
    """Return a page of the entries of a BibTeX file; the heading of each is its key."""
    parts = ["# References"]
    for key, body in re.findall(r"^@\w+\{(\w+),\n(.*?)^\}", bibliography + "\n", re.M | re.S):
        pairs = re.findall(r"^\s*(\w+)\s*=\s*\{(.*?)\},?$", body, re.MULTILINE)
        entry = {name: re.sub(r"[{}]", "", text) for name, text in pairs}
        source = next(
            (entry[k] for k in ("journal", "booktitle", "note", "howpublished") if k in entry), ""
        )
        if "doi" in entry:
            source += f" [doi:{entry['doi']}](https://doi.org/{entry['doi']})"
        elif "eprint" in entry:
            source += f" [arXiv:{entry['eprint']}](https://arxiv.org/abs/{entry['eprint']})"
        authors = entry["author"].replace(" and ", ", ")
        text = f"### {key} {{ #{key} }}\n\n{authors} ({entry['year']}), *{entry['title']}*"
        parts.append(f"{text}. {source.strip()}" if source else text)
    return "\n\n".join(parts) + "\n"


def page(notebook: dict[str, Any], stem: str) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as Markdown, and its pictures by file name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            parts.append(cell["source"].replace(".ipynb)", ".md)"))
            if len(parts) == 1:
                parts.append(f"[Download this page as a notebook]({stem}.ipynb)")
            continue
        parts.append(f"```python\n{cell['source']}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/jpeg" in data:
                name = f"{stem}-{len(pictures) + 1}.jpg"
                pictures[name] = base64.b64decode(data["image/jpeg"])
                caption = html.escape(data["text/plain"].strip("<>").split("\n")[0])
                parts.append(f'<figure class="output" markdown>![{caption}]({name})</figure>')
            elif "text/html" in data:
                parts.append(f'<div class="output">{data["text/html"]}</div>')
            else:
                text = output.get("text") or data["text/plain"]
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n", pictures
