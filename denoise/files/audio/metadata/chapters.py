"""Chapters, in Vorbis comments and in ID3.

Reference:
    Chapter Extension, 2014, of the wiki of Xiph.Org; ID3v2 Chapter Frame Addendum, 2005.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import NamedTuple

START = re.compile(r"CHAPTER(\d{3})")
TIME = re.compile(r"(\d+):(\d{1,2}):(\d{1,2})(?:\.(\d{1,3}))?")
UNKNOWN = 0xFFFF_FFFF  # of times and offsets in ID3
MAX_LISTED = 255  # chapters of a table of contents


class Chapter(NamedTuple):
    """A chapter.

    Args:
        start: in milliseconds.
        end: in milliseconds; `UNKNOWN` in Vorbis comments, which do not state it.
        title: its title, perhaps empty.
    """

    start: int
    end: int
    title: str


def to_comments(chapters: Iterable[Chapter]) -> list[tuple[str, str]]:
    """Convert chapters to Vorbis comments.

    Args:
        chapters: the chapters in order.
    """
    comments = []
    for number, (start, _, title) in enumerate(chapters, 1):
        seconds, ms = divmod(start, 1000)
        name, time = f"CHAPTER{number:03}", f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{ms:03}"
        comments += [(name, time), (f"{name}NAME", title)]
    return comments


def split_comments(comments: Iterable[tuple[str, str]]) -> tuple[list[Chapter], list[tuple[str, str]]]:
    """Return the chapters in Vorbis comments, in order of time, and the other comments.

    Args:
        comments: names and values.
    """
    chapters, other, values = [], [], [*comments]
    titles = {name: value for name, value in values if name.startswith("CHAPTER")}
    starts = {name for name, value in values if START.fullmatch(name) and TIME.fullmatch(value)}
    for name, value in values:
        if name in starts and (time := TIME.fullmatch(value)) is not None:
            hours, minutes, seconds, fraction = time.groups(default="0")
            start = 1000 * (3600 * int(hours) + 60 * int(minutes) + int(seconds)) + int(f"{fraction:0<3}")
            chapters.append(Chapter(start, UNKNOWN, titles.get(f"{name}NAME", "")))
        elif name.removesuffix("NAME") not in starts:
            other.append((name, value))
    return sorted(chapters), other


def parse_frame(frame: bytes) -> tuple[Chapter, bytes] | None:
    """Return a chapter without title and its embedded frames, None if it is cut off.

    Args:
        frame: a frame CHAP of ID3 with its head.
    """
    element_end = frame.find(b"\0", 10) + 1
    if not element_end or len(frame) < element_end + 16:
        return None
    start, end = struct.unpack_from(">II", frame, element_end)
    return Chapter(start, end, ""), frame[element_end + 16 :]


def build_bodies(chapters: list[Chapter], titles: list[bytes], end: int) -> list[tuple[str, bytes]]:
    """Return the names and contents of the frames of ID3 for chapters and their table of contents.

    Args:
        chapters: the chapters in order.
        titles: their embedded frames.
        end: of the recording in milliseconds.
    """
    frames = []
    ends = [*(chapter.start for chapter in chapters[1:]), end]
    for number, (chapter, title, chapter_end) in enumerate(zip(chapters, titles, ends, strict=True), 1):
        times = struct.pack(">IIII", chapter.start, max(chapter.start, chapter_end), UNKNOWN, UNKNOWN)
        frames.append(("CHAP", b"chp%d\0" % number + times + title))
    listed = [b"chp%d\0" % number for number in range(1, len(chapters) + 1)][:MAX_LISTED]
    is_top_and_ordered = 3
    return [*frames, ("CTOC", b"toc\0" + bytes((is_top_and_ordered, len(listed))) + b"".join(listed))]
