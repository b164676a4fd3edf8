"""``denoise models`` and ``denoise info``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from denoise.cli.output import print_table
from denoise.cli.params import ModelArgument

KINDS: tuple[Literal["denoiser", "prior", "codec", "classifier"], ...] = ("denoiser", "prior", "codec", "classifier")
COLUMNS = ("name", "kind", "for", "parameters", "MiB", "description")
SEPARATORS = {"shape": " x ", "classes": ", "}  # of the lists in a card; all others are ranges


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON per model.")] = False,
) -> None:
    """List the bundled models."""
    from denoise.cards import read_header
    from denoise.registry import DEFAULTS, POSTERIOR_MODEL, SIGMA_MODEL, bundled, locate

    selecting_options = dict.fromkeys(DEFAULTS.values(), "default")
    selecting_options |= {SIGMA_MODEL: "--perception", POSTERIOR_MODEL: "--perception"}
    rows: list[tuple[str, ...]] = []
    for name in [name for kind in KINDS for name in bundled(kind=kind)]:
        path = locate(name)
        card = read_header(path)["card"]
        option = selecting_options.get(name)
        if as_json:
            row: dict[str, Any] = {"name": name, "kind": card.kind, "modality": card.modality}
            row |= {"parameters": card.parameters, "description": card.description}
            row |= {"chosen_by": option} if option else {}
            print(json.dumps(row | {"bytes": path.stat().st_size}))
            continue
        title = f"{name} ({option})" if option else name
        mebibytes = f"{path.stat().st_size / 2**20:.1f}"
        parameters = f"{card.parameters / 1e6:.1f} M"
        rows.append((title, card.kind, card.modality, parameters, mebibytes, card.description))
    if not as_json:
        print_table(COLUMNS, rows)


def info(
    model: ModelArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole header as JSON.")] = False,
) -> None:
    """Show a model's architecture, training data, licence and metrics."""
    from dataclasses import asdict

    from denoise.cards import read_header, stream_latency_s
    from denoise.registry import locate

    if model.endswith(".onnx"):
        header, card = _read_exported(model)
    else:
        header = read_header(locate(model))
        card = asdict(header["card"])
        if card["kind"] == "denoiser" and card["modality"] == "audio":
            latency_s = stream_latency_s(header["config"])
            card["latency_ms"] = None if latency_s is None else round(1000 * latency_s, 1)
    if as_json:
        print(json.dumps(header | {"card": card}, indent=2))
        return
    for key, value in card.items():
        if key == "data":
            print("data:\n" + "".join(f"  - {line}\n" for line in value), end="")
        elif key == "metrics":
            _print_metrics(value)
        elif key == "typical" and value:
            print(f"typical ({value['protocol']}):")
            quantities = ("log p", " nats"), ("complexity", " bytes"), ("log denoising error", "")
            rows = zip(quantities, value["mean"], value["covariance"], strict=False)
            texts = [
                f"{name} {mean:.4g} +- {row[i] ** 0.5:.3g}{unit}" for i, ((name, unit), mean, row) in enumerate(rows)
            ]
            print(f"  {', '.join(texts)}")
        elif isinstance(value, tuple | list):
            if value:
                print(f"{key}: {SEPARATORS.get(key, ' to ').join(map(_format_value, value))}")
        elif value is not None:
            print(f"{key}: {value}")


def _read_exported(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the header of an exported file as plain values, and its card with the latency of a stream."""
    from dataclasses import asdict

    from denoise.backends.onnx.runtime import FACTS, read_header

    header = read_header(Path(path))
    header |= {key: asdict(header[key]) for key in ("card", *FACTS) if header[key] is not None}
    card, stream = header["card"], header["stream"]
    return header, card | ({"latency_ms": round(1000 * stream["latency_s"], 1)} if stream else {})


def _print_metrics(metrics: dict[str, Any]) -> None:
    print("metrics:")
    for name, measured in metrics.items():
        print(f"  {name} ({measured['protocol']})")
        for row in measured["rows"]:
            print("    " + "  ".join(f"{column} {_format_value(value)}" for column, value in row.items()))


def _format_value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"
