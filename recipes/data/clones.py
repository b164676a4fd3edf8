"""Files of git clones, with or without a work tree."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Clone:
    """Reads the files of one commit of a clone.

    Args:
        folder: clone, bare or checked out, named owner+name.
        commit: commit to read; the newest if it is None.
    """

    def __init__(self, folder: Path, commit: str | None = None) -> None:
        patterns = (".git/HEAD", "HEAD", "*/HEAD", "*/.git/HEAD")
        heads = [path for pattern in patterns for path in folder.glob(pattern)]
        if not heads:
            raise SystemExit(f"{folder}: is no git clone.")
        self.repository = folder.name.replace("+", "/", 1)
        self.git = ["git", "--git-dir", str(heads[0].parent)]
        self.commit = self.run("rev-parse", commit or "HEAD").decode()[:10]
        rows = self.run("ls-tree", "-r", "-z", self.commit).decode("utf-8", "replace").split("\0")
        self.files = {row.split("\t", 1)[1]: row.split()[2] for row in rows if row}
        self.reader = subprocess.Popen(
            [*self.git, "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def run(self, *arguments: str) -> bytes:
        """Run git and return its output."""
        return subprocess.run([*self.git, *arguments], check=True, capture_output=True).stdout

    def read(self, path: str) -> bytes | None:
        """Return the content of a file, or None if it is absent: some clones lack their largest files."""
        if path not in self.files:
            return None
        self.reader.stdin.write(self.files[path].encode() + b"\n")
        self.reader.stdin.flush()
        header = self.reader.stdout.readline().split()
        if len(header) != 3:
            return None
        content = self.reader.stdout.read(int(header[2]))
        self.reader.stdout.read(1)
        return content

    def close(self) -> None:
        """End the process that reads files."""
        with self.reader:
            self.reader.stdin.close()
