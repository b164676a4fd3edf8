"""``denoise web``."""

from __future__ import annotations

from typing import Annotated

import typer

from denoise.cli.output import print_error
from denoise.web.serve import LOOPBACK, MAX_UPLOAD_MIB, serve


def web(
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on; 0.0.0.0 lets other machines in, without a password.",
            metavar="ADDRESS",
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8765,
    max_upload: Annotated[float, typer.Option(help="Largest file in MiB.", metavar="MIB")] = MAX_UPLOAD_MIB,
) -> None:
    """Open a page in the browser to denoise files and to explore priors.

    The page is at http://127.0.0.1:8765/ until Ctrl-C. It loads nothing from elsewhere, and files stay on this machine.
    """
    from denoise.backends.malloc import return_freed_memory

    def announce(address: str) -> None:
        if host not in LOOPBACK:
            print_error(f"warning: everybody who reaches {address} can use this page")
        print(f"{address}  (Ctrl-C stops)", flush=True)

    return_freed_memory()
    serve(host, port, max_upload_mib=max_upload, announce=announce)
