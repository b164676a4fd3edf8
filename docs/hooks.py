"""Hooks of the documentation site: references that are generated from the code, and pictures from other folders."""

from __future__ import annotations

import dataclasses
import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ASSETS = {"assets/before_after.png": "samples/before_after.png"}
ENTRY = re.compile(r"^    (\w+): (.*(?:\n {8,}.*)*)", re.M)


def on_files(files: Any, config: Any) -> Any:
    """Add pictures that belong to other folders to the site."""
    from mkdocs.structure.files import File

    for target, source in ASSETS.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Replace ``{{ commands }}`` by the help of every command, and ``{{ fields MODULE CLASS }}`` by a table."""
    if "{{ commands }}" in markdown:
        markdown = markdown.replace("{{ commands }}", command_reference())
    return re.sub(r"\{\{ fields (\S+) (\S+) \}\}", lambda match: field_table(*match.groups()), markdown)


def command_reference() -> str:
    """Return the reference of all commands as Markdown, from typer."""
    import typer
    from typer.cli import get_docs_for_click

    from denoise.cli import app

    command = typer.main.get_command(app)
    reference = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="denoise"), name="denoise")
    return reference.removeprefix("# `denoise`").strip()


def field_table(module: str, name: str) -> str:
    """Return a table of the fields of a dataclass, with types and defaults; its docstring describes them."""
    cls = getattr(import_module(module), name)
    docstring = inspect.getdoc(cls) or ""
    summary, _, arguments = docstring.partition("\nArgs:\n")
    descriptions = {key: " ".join(text.split()) for key, text in ENTRY.findall(arguments)}
    rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(cls):
        kind = str(field.type).replace("|", "\\|")
        if field.default is not dataclasses.MISSING:
            default = f"`{field.default!r}`".replace("|", "\\|")
        else:
            default = "required" if field.default_factory is dataclasses.MISSING else "empty"
        rows.append(f"| `{field.name}` | {kind} | {default} | {descriptions[field.name]} |")
    return summary.strip() + "\n\n" + "\n".join(rows)
