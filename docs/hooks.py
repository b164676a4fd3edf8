"""Hooks of the documentation site: the reference of the command line, and pictures from other folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ASSETS = {
    "assets/before_after.png": "samples/before_after.png",
    "assets/mnist-matching.png": "recipes/mnist-matching/samples.png",
    "assets/flowers.png": "recipes/flowers/samples.png",
    "assets/between.png": "recipes/mnist-flow/between.png",
}


def on_files(files: Any, config: Any) -> Any:
    """Add pictures that belong to samples and recipes to the site."""
    from mkdocs.structure.files import File

    for target, source in ASSETS.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Replace ``{{ commands }}`` with the help of every command, as typer renders it."""
    if "{{ commands }}" not in markdown:
        return markdown
    return markdown.replace("{{ commands }}", command_reference())


def command_reference() -> str:
    """Return the reference of all commands as Markdown."""
    import typer
    from typer.cli import get_docs_for_click

    from denoise.cli import app

    command = typer.main.get_command(app)
    context_class = getattr(command, "context_class", None) or typer.Context
    reference = get_docs_for_click(obj=command, ctx=context_class(command, info_name="denoise"), name="denoise")
    return reference.removeprefix("# `denoise`").strip()
