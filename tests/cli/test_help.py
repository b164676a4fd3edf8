"""Help and error texts are printed as they stand in the source: nothing is parsed as markup."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from typer.main import get_command

import denoise
from denoise.cli import app
from denoise.cli.output import print_table, progress_bar
from denoise.errors import ConfigError
from tests.cli.conftest import Command

COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
PACKAGE = Path(denoise.__file__).parent
MARKUP = "[bold]x[/bold]"


def squeeze(text: str) -> str:
    """Remove white space, which depends on the width of the terminal."""
    return re.sub(r"\s+", "", text)


@pytest.fixture
def help_pages(command: Command) -> dict[str, str]:
    """Squeezed help of every command, and of the program under the empty name."""
    return {name: squeeze(command(*name.split(), "--help").out.decode()) for name in ("", *COMMANDS)}


def literals(node: ast.AST) -> Iterator[str]:
    """Texts in a syntax tree; expressions in f-strings are replaced by markup."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else MARKUP for part in node.values)
    else:
        for child in ast.iter_child_nodes(node):
            yield from literals(child)


class TestHelp:
    def test_every_help_literal_of_the_source_is_printed(self, help_pages: dict[str, str]) -> None:
        sources = [
            keyword.value.value
            for path in (PACKAGE / "cli").glob("*.py")
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
            for keyword in node.keywords
            if keyword.arg == "help" and isinstance(keyword.value, ast.Constant)
        ]
        assert len(sources) > 50
        assert any("[" in source for source in sources)
        everything = "".join(help_pages.values())
        assert [source for source in sources if squeeze(source) not in everything] == []

    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_option_of_a_command(self, help_pages: dict[str, str], name: str) -> None:
        command, page = COMMANDS[name], help_pages[name]
        assert squeeze(inspect.getdoc(command.callback) or "") in page
        for param in command.params:
            assert squeeze(param.help) in page
            if param.param_type_name == "option":
                assert all(option in page for option in param.opts)
            if param.metavar is not None:
                assert squeeze(param.metavar) in page

    def test_summaries_are_not_cut(self, help_pages: dict[str, str]) -> None:
        for name, command in COMMANDS.items():
            summary = (inspect.getdoc(command.callback) or "").partition("\n")[0]
            assert squeeze(name + summary) in help_pages[""]

    def test_flags_have_no_metavar(self, help_pages: dict[str, str]) -> None:
        assert not [name for name, page in help_pages.items() if "bool" in page.lower()]


class TestErrors:
    def test_every_error_literal_of_the_source(self, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        messages = {
            text
            for path in PACKAGE.rglob("*.py")
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Raise) and node.exc is not None
            for text in literals(node.exc)
            if " " in text and "\n" not in text
        }
        assert len(messages) > 150
        assert any('".[metrics]"' in message for message in messages)

        def fail(*_: Any, **__: Any) -> None:
            raise ConfigError(message)

        monkeypatch.setattr("denoise.cli.app", fail)
        for message in sorted(messages):
            done = command("models")
            assert (done.code, done.out, done.err) == (2, b"", f"denoise: {message}\n")

    @pytest.mark.parametrize("is_terminal", [False, True])
    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (ZeroDivisionError(MARKUP), f"denoise: ZeroDivisionError: {MARKUP}. This is a bug in denoise"),
            (FileNotFoundError(2, "No such file", MARKUP), f"denoise: {MARKUP}: No such file. Check the path.\n"),
            (OSError(MARKUP), f"denoise: {MARKUP}\n"),
        ],
    )
    def test_other_errors(
        self, command: Command, monkeypatch: pytest.MonkeyPatch, is_terminal: bool, error: Exception, message: str
    ) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise error

        if is_terminal:
            monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setattr("denoise.cards.read_header", fail)
        done = command("models")
        assert done.code == 1
        assert done.err.startswith(message)

    def test_usage_errors(self, command: Command) -> None:
        assert f"No such command '{MARKUP}'." in command(MARKUP).err
        assert f"No such option: --{MARKUP}" in command("audio", "a.wav", f"--{MARKUP}").err

    def test_failures_and_skipped_kinds_below_a_progress_bar(
        self, command: Command, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")  # the progress bar is drawn on terminals
        monkeypatch.setenv("COLUMNS", "400")
        folder = tmp_path / "in"
        folder.mkdir()
        (folder / "x.[red]").touch()
        (folder / "[red].wav").write_text("not audio")
        soundfile.write(folder / "[bold].wav", [0.0] * 1600, 16_000)
        done = command("audio", "in", "-o", "out", "--model", models["keep-audio"])
        assert done.code == 1
        assert "files are skipped: .[red] 1" in done.err
        assert "denoise: in/[red].wav: cannot be read as audio" in done.err
        assert (tmp_path / "out" / "[bold].wav").exists()


def test_cells_and_descriptions_with_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    print_table([MARKUP, "b"], [[":smile:", MARKUP]])
    assert capsys.readouterr().out.split() == [MARKUP, "b", ":smile:", MARKUP]
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    with progress_bar(MARKUP) as progress:
        progress(0.5)
    assert MARKUP in capsys.readouterr().err
