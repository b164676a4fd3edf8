"""``denoise models`` and ``denoise info``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from denoise.cli.shared import print_table


def models(
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON per model.")] = False,
) -> None:
    """List the bundled models."""
    from rich.table import Table

    from denoise.registry import DEFAULTS, POSTERIOR_MODEL, SIGMA_MODEL, bundled, locate
    from denoise.weights import read_header

    chosen = dict.fromkeys(DEFAULTS.values(), "default") | {SIGMA_MODEL: "--sigma", POSTERIOR_MODEL: "--perception"}
    table = Table("name", "kind", "for", "parameters", "MiB", "description", box=None, pad_edge=False)
    for name in [name for kind in ("denoiser", "prior", "codec") for name in bundled(kind=kind)]:
        path = locate(name)
        card = read_header(path)["card"]
        if as_json:
            told = {key: getattr(card, key) for key in ("kind", "modality", "parameters", "description")}
            chosen_by = {"chosen_by": chosen[name]} if name in chosen else {}
            print(json.dumps({"name": name} | told | chosen_by | {"bytes": path.stat().st_size}))
            continue
        mark = f" ({chosen[name]})" if name in chosen else ""
        size = f"{path.stat().st_size / 2**20:.1f}"
        table.add_row(name + mark, card.kind, card.modality, f"{card.parameters / 1e6:.1f} M", size, card.description)
    if not as_json:
        print_table(table)


def info(
    model: Annotated[str, typer.Argument(help="A name of `denoise models` or a .safetensors file.")],
    as_json: Annotated[bool, typer.Option("--json", help="The whole header as JSON.")] = False,
) -> None:
    """Tell what a model is, what it was trained on, under which licence, and what was measured."""
    from dataclasses import asdict

    from denoise.registry import locate
    from denoise.weights import read_header

    header = read_header(locate(model))
    card = asdict(header["card"])
    if card["kind"] == "denoiser" and card["modality"] == "audio":
        card["latency_ms"] = _latency_ms(model)
    if as_json:
        print(json.dumps(header | {"card": card}, indent=2))
        return
    for key, value in card.items():
        if key == "data":
            print("data:\n" + "".join(f"  - {line}\n" for line in value), end="")
        elif isinstance(value, tuple | list):
            between = {"shape": " x ", "classes": ", "}.get(key, " to ")
            if value:
                print(f"{key}: {between.join(map(_told, value))}")
        elif isinstance(value, dict):
            print(f"{key}:")
            for name, measured in value.items():
                print(f"  {name} ({measured['protocol']})")
                for row in measured["rows"]:
                    print("    " + "  ".join(f"{column} {_told(n)}" for column, n in row.items()))
        elif value is not None:
            print(f"{key}: {value}")


def _told(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _latency_ms(model: str) -> float | None:
    """Of a model that carries its state and takes any sample rate; None of one that sees whole windows."""
    from denoise.protocols import StreamingNetwork
    from denoise.registry import load

    network, _ = load(model)
    return round(1000 * network.latency_s, 1) if isinstance(network, StreamingNetwork) else None
