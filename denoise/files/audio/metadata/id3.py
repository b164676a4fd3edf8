"""ID3: frames that describe the coding are taken out; text and pictures are converted."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from tinytag import TinyTag, TinyTagException

from denoise.files.audio.id3_header import ID3_HEADER_BYTES, has_footer, id3_bytes, syncsafe
from denoise.files.audio.metadata.chapters import (
    UNKNOWN,
    Chapter,
    build_bodies,
    parse_frame,
    split_comments,
    to_comments,
)
from denoise.files.audio.metadata.tags import Tags, build_picture, parse_picture

STALE_FRAMES = frozenset((b"TLEN", b"TLE", b"MLLT", b"MLL", b"ASPI", b"SEEK"))
"""Frames that state the length or the byte offsets of the stream, which the new file states itself."""
STALE_COMMENT = b"iTunSMPB"  # encoder delay and length for gapless playback
FRAMES = {
    "TITLE": "TIT2", "ARTIST": "TPE1", "ALBUM": "TALB", "ALBUMARTIST": "TPE2", "COMPOSER": "TCOM", "GENRE": "TCON",
    "DATE": "TDRC", "TRACKNUMBER": "TRCK", "DISCNUMBER": "TPOS", "COPYRIGHT": "TCOP", "ISRC": "TSRC", "BPM": "TBPM",
    "INITIALKEY": "TKEY", "LANGUAGE": "TLAN", "PUBLISHER": "TPUB", "CONDUCTOR": "TPE3", "LYRICIST": "TEXT",
    "SETSUBTITLE": "TSST", "DISCSUBTITLE": "TSST", "ENCODEDBY": "TENC", "MEDIA": "TMED", "GROUPING": "TIT1",
}  # fmt: skip
COMMENT_FRAMES = {"COMMENT": "COMM", "DESCRIPTION": "COMM", "LYRICS": "USLT", "UNSYNCEDLYRICS": "USLT"}
TOTALS = {"TRACKNUMBER": ("TRACKTOTAL", "TOTALTRACKS"), "DISCNUMBER": ("DISCTOTAL", "TOTALDISCS")}
TINYTAG_NAMES = {
    "year": "DATE", "track": "TRACKNUMBER", "track_total": "TRACKTOTAL", "disc": "DISCNUMBER",
    "disc_total": "DISCTOTAL", "url": "WEBSITE", "initial_key": "INITIALKEY", "set_subtitle": "SETSUBTITLE",
    "encoded_by": "ENCODEDBY", "encoder_settings": "ENCODERSETTINGS", "movement_name": "MOVEMENTNAME",
    "catalog_number": "CATALOGNUMBER", "show_movement": "SHOWMOVEMENT",
}  # fmt: skip
CARRIED_FRAMES = re.compile(rb"T|COMM?$|ULT|USLT|A?PIC|WOAR|WAR$|WCOP|GRP1|GP1|MVNM|MVIN|SYLT|SLT|CHAP|CTOC")
"""Frames that `parse_id3` converts."""
PICTURE_KINDS = (
    "generic", "icon", "alt_icon", "front_cover", "back_cover", "leaflet", "media", "lead_artist", "artist",
    "conductor", "band", "composer", "lyricist", "recording_location", "during_recording", "during_performance",
    "screen_capture", "bright_colored_fish", "illustration", "band_logo", "publisher_logo",
)  # fmt: skip
"""Names that tinytag gives to the kinds of pictures 0 to 20."""


def drop_stale_frames(tag: bytes) -> bytes:
    """Return an ID3v2 tag without a footer and the frames that would be wrong of another stream.

    Args:
        tag: the tag; one that ends before its declared length gets the true one.

    Returns:
        The same bytes if nothing is wrong.
    """
    frames = [*split_frames(tag)]
    kept = [frame for name, frame in frames if not _is_stale(name, frame)]
    if len(kept) == len(frames) and len(tag) == id3_bytes(tag) and not has_footer(tag):
        return tag
    return _wrap(b"".join(kept), tag[3])


def seek_offset(tag: bytes) -> int:
    """Return how far behind an ID3v2.4 tag another one starts, 0 if it states none.

    Args:
        tag: the whole tag.
    """
    frames = split_frames(tag) if tag[3] == 4 else ()
    return next((int.from_bytes(frame[10:14], "big") for name, frame in frames if name == b"SEEK"), 0)


def join_tags(tag: bytes, other: bytes) -> bytes:
    """Return an ID3v2 tag with the frames of another one that it lacks.

    Args:
        tag: the whole tag.
        other: a tag of the same version; of its texts those of other names are taken.
    """
    frames = [*split_frames(tag)]
    texts = {name for name, _ in frames if name.startswith(b"T") and name != b"TXXX"}
    added = [frame for name, frame in split_frames(other) if name not in texts and (name, frame) not in frames]
    return _wrap(b"".join([*(frame for _, frame in frames), *added]), tag[3])


def split_frames(tag: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield names and bytes of the frames of an ID3v2 tag, up to the first bytes that are none.

    Args:
        tag: the whole tag.
    """
    version, flags, data = tag[3], tag[5], tag[ID3_HEADER_BYTES : ID3_HEADER_BYTES + syncsafe(tag[6:10])]
    if version < 4 and flags & 0x80:
        data = data.replace(b"\xff\x00", b"\xff")  # unsynchronisation
    if version > 2 and flags & 0x40:  # extended header
        data = data[syncsafe(data[:4]) if version == 4 else 4 + int.from_bytes(data[:4], "big") :]
    header_bytes, name_bytes = (6, 3) if version == 2 else (10, 4)
    offset = 0
    while re.match(rb"[A-Z0-9]{%d}" % name_bytes, data[offset : offset + header_bytes]):
        size_bytes = data[offset + name_bytes : offset + name_bytes * 2]
        size = _frame_bytes(data, offset, size_bytes) if version == 4 else int.from_bytes(size_bytes, "big")
        end = offset + header_bytes + size
        if end > len(data):
            return
        yield data[offset : offset + name_bytes], data[offset:end]
        offset = end


def _frame_bytes(data: bytes, offset: int, size_bytes: bytes) -> int:
    """Size of a frame of ID3v2.4; old versions of iTunes did not write it with seven bits per byte."""
    safe, plain = syncsafe(size_bytes), int.from_bytes(size_bytes, "big")
    after = [data[offset + 10 + size : offset + 14 + size] for size in (safe, plain)]
    is_frame = [bool(re.fullmatch(rb"[A-Z0-9]{4}|\0{1,4}|", name)) for name in after]
    return plain if max(size_bytes) > 127 or (is_frame[1] and not is_frame[0]) else safe


def _is_stale(name: bytes, frame: bytes) -> bool:
    return name in STALE_FRAMES or (name in (b"COMM", b"COM", b"TXXX", b"TXX") and STALE_COMMENT in frame[:64])


def _wrap(frames: bytes, version: int) -> bytes:
    size = len(frames)
    return b"ID3" + bytes((version, 0, 0, *((size >> shift) & 127 for shift in (21, 14, 7, 0)))) + frames


def parse_id3(tag: bytes, id3v1: bytes = b"") -> Tags:
    """Convert the text and the pictures of an ID3 tag.

    Args:
        tag: the whole ID3v2 tag, or nothing.
        id3v1: an ID3v1 tag, or nothing.

    Returns:
        The tags, with the tag itself.
    """
    tag = drop_stale_frames(tag) if tag else tag
    names = [name for name, _ in split_frames(tag)] if tag else []
    chapters, lost = _parse_chapters(tag) if b"CHAP" in names or b"CTOC" in names else ([], [])
    id3_only = tuple(dict.fromkeys([*(name.decode() for name in names if not CARRIED_FRAMES.match(name)), *lost]))
    try:
        parsed = TinyTag.get(file_obj=io.BytesIO((tag or b"\xff\xfb\x90\x00") + id3v1), duration=False, image=True)
    except TinyTagException:
        return Tags(id3=tag, id3_only=("ID3",))
    comments = []
    for key, values in parsed.as_dict().items():
        if isinstance(values, list):
            name = TINYTAG_NAMES.get(key, key.lstrip("_").upper())
            comments += [(name, str(value)) for value in dict.fromkeys(values)]
    comments += to_comments(chapters)
    kinds = {name: kind for kind, name in enumerate(PICTURE_KINDS)}
    pictures = [
        build_picture(image.data, image.mime_type or "", kinds.get(kind, 0), image.description or "")
        for kind, images in parsed.images.as_dict().items()
        for image in images
    ]
    return Tags(tuple(comments), tuple(pictures), tag, id3_only)


def _parse_chapters(tag: bytes) -> tuple[list[Chapter], list[str]]:
    """Return the chapters of a tag in order of time, and the names of what they do not hold."""
    chapters: list[Chapter] = []
    lost: list[str] = []
    n_tables = 0
    for name, frame in split_frames(tag):
        n_tables += name == b"CTOC"
        if name != b"CHAP":
            continue
        parsed = parse_frame(frame)
        if parsed is None or frame[9]:  # compressed, encrypted or unsynchronised
            lost.append("CHAP")
            continue
        embedded = [*split_frames(_wrap(parsed[1], tag[3]))]
        titles = b"".join(data for kind, data in embedded if kind == b"TIT2")
        title = "".join(parse_id3(_wrap(titles, tag[3])).by_name().get("TITLE", [])) if titles else ""
        chapters.append(parsed[0]._replace(title=title))
        lost += [f"CHAP-{kind.decode()}" for kind, _ in embedded if kind != b"TIT2"]
    chapters.sort()
    if n_tables > 1:
        lost.append("CTOC")
    if any(chapter.end != following.start for chapter, following in pairwise(chapters)):
        lost.append("the ends of chapters")
    return chapters, lost


def build_id3(tags: Tags) -> bytes:
    """Return an ID3v2.4 tag, or that which the tags are from, padded to an even length.

    Args:
        tags: text and pictures.
    """
    if tags.id3:
        return tags.id3 + bytes(len(tags.id3) % 2)
    chapters, comments = split_comments(tags.comments)
    values, frames = replace(tags, comments=tuple(comments)).by_name(), []
    for name, totals in TOTALS.items():
        total = next((values.pop(key)[0] for key in totals if key in values), None)
        if total and name in values and "/" not in values[name][0]:
            values[name][0] += f"/{total}"
    paragraphs: dict[str, list[str]] = {}
    for name, texts in values.items():
        if name in COMMENT_FRAMES:
            paragraphs.setdefault(COMMENT_FRAMES[name], []).extend(texts)
        elif name in FRAMES:
            frames.append(_frame(FRAMES[name], b"\3" + "\0".join(texts).encode()))
        elif any(texts):  # libmpg123 reports frames without text on the terminal
            frames.append(_frame("TXXX", b"\3" + "\0".join([name, *texts]).encode()))
    for frame, texts in paragraphs.items():  # of a language and a description, here none, there is one frame
        frames.append(_frame(frame, b"\3und\0" + "\n".join(dict.fromkeys(texts)).encode()))
    for picture in tags.pictures:
        data, mime, number, description = parse_picture(picture)
        head = mime.encode("latin-1", "replace") + b"\0" + bytes((number & 0xFF,)) + description.encode() + b"\0"
        frames.append(_frame("APIC", b"\3" + head + data))
    if chapters:
        titles = [_frame("TIT2", b"\3" + chapter.title.encode()) if chapter.title else b"" for chapter in chapters]
        end = UNKNOWN if tags.length_ms is None else tags.length_ms
        frames += [_frame(name, body) for name, body in build_bodies(chapters, titles, end)]
    data = b"".join(frames)
    return _wrap(data + bytes(len(data) % 2), 4)  # chunks of odd length confuse readers of RF64


def lost_frames(tags: Tags) -> list[str]:
    """Return the names of the frames that `build_id3` leaves out."""
    return [] if tags.id3 else [*tags.id3_only]


def _frame(name: str, body: bytes) -> bytes:
    size = bytes((len(body) >> shift) & 127 for shift in (21, 14, 7, 0))
    return name.encode() + size + struct.pack(">H", 0) + body
