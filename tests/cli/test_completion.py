"""Shell completion, through the protocol that bash, zsh and fish speak with the program."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.markup import render

from denoise.cli.completion import DESCRIPTION_WIDTH, _plain_description

SHELLS = ["bash", "zsh", "fish"]
SCRIPTS = {
    "bash": ".bash_completions/denoise.sh",
    "zsh": ".zfunc/_denoise",
    "fish": ".config/fish/completions/denoise.fish",
}
PROGRAM = """
import sys
from denoise.cli import main
try:
    main()
finally:
    assert "torch" not in sys.modules
"""


def run(*words: str, **env: str) -> str:
    """Run ``denoise WORDS`` in a process that must not import torch, and return its standard output."""
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], env=os.environ | env, capture_output=True, text=True, check=False
    )
    assert process.stderr == ""
    assert process.returncode == 0
    return process.stdout


def complete(shell: str, line: str) -> str:
    """Return what a shell gets for the last word of a command line."""
    if shell == "bash":
        return run(_DENOISE_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(line.count(" ")))
    action = {"_TYPER_COMPLETE_FISH_ACTION": "get-args"} if shell == "fish" else {}
    return run(_DENOISE_COMPLETE=f"complete_{shell}", _TYPER_COMPLETE_ARGS=line, **action)


@pytest.mark.parametrize(
    ("line", "candidates"),
    [
        ("denoise in", {"interpolate", "info"}),
        ("denoise audio --per", {"--perception"}),
        ("denoise audio a.wav --model speech", {"speech", "speech-best", "speech-flow"}),
        ("denoise image a.png --model ", {"photo", "gaussian", "vae-image"}),
        ("denoise sample mnist-v", {"mnist-vae"}),
        ("denoise score a.png --prior flow", {"flowers"}),
        ("denoise image a.png --prior p", {"patch-flow"}),
        ("denoise audio a.wav --prior ", {"speech-prior"}),
        ("denoise info gau", {"gaussian"}),
        ("denoise audio --device c", {"cpu", "cuda"}),
        ("denoise audio --model no-such", set()),
    ],
)
def test_candidates(line: str, candidates: set[str]) -> None:
    assert {*complete("bash", line).split()} == candidates


@pytest.mark.parametrize(("shell", "pattern"), [("zsh", r'"--[\w-]+":"[^"]+"'), ("fish", r"--[\w-]+\t.+")])
def test_every_option_is_one_line_with_its_description(shell: str, pattern: str) -> None:
    lines = (
        complete(shell, "denoise audio --").strip().removeprefix("_arguments '*: :((").removesuffix("))'").splitlines()
    )
    assert len(lines) == 28
    assert [line for line in lines if not re.fullmatch(pattern, line)] == []
    assert any("Write spectrograms of input" in line for line in lines)


def test_brackets_in_descriptions_are_kept() -> None:
    """The shells' classes in typer parse descriptions as markup."""
    assert render(_plain_description('needs ".[compare]"')).plain == 'needs ".[compare]"'
    shortened = render(_plain_description("[bold]" + "word " * 99)).plain
    assert shortened.startswith("[bold]word word")
    assert len(shortened) <= DESCRIPTION_WIDTH


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_are_shown_and_installed(shell: str, tmp_path: Path) -> None:
    environment = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", "HOME": str(tmp_path)}
    script = run("--show-completion", shell, **environment)
    assert f"_DENOISE_COMPLETE=complete_{shell}" in script
    assert f"{shell} completion installed" in run("--install-completion", shell, **environment)
    assert (tmp_path / SCRIPTS[shell]).read_text().strip() == script.strip()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_with_the_installed_script(tmp_path: Path) -> None:
    program = tmp_path / "denoise"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m denoise "$@"\n')
    program.chmod(0o755)
    steps = (
        "denoise --install-completion; source ~/.bash_completions/denoise.sh; COMP_WORDS=(denoise audio --skip); "
        'COMP_CWORD=2; _denoise_completion denoise; echo "completed: ${COMPREPLY[@]}"'
    )
    environment = os.environ | {"HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    output = subprocess.run(
        ["bash", "--norc", "-c", steps], env=environment, capture_output=True, text=True, check=True
    )
    assert "bash completion installed" in output.stdout
    assert "completed: --skip-existing\n" in output.stdout
