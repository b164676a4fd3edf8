"""Licences that texts name."""

from __future__ import annotations

import re

FORBIDDEN = re.compile(
    r"\bN[CD]\b|non-?commercial|no-?deriv|pixabay|pexels|unsplash|rice university|openstax|copyright|rights reserved"
    r"|permission|fair use",
    re.I,
)
LICENCES = [
    (re.compile(r"\bCC[ -]?0|creative commons zero", re.I), "CC0"),
    (re.compile(r"\b(?:CC[ -]?)?BY[ -]SA[ -]?(\d\.\d)?|attribution[ -]share ?-?alike (\d\.\d)", re.I), "CC BY-SA"),
    (re.compile(r"\bCC[ -]BY[ -]?(\d\.\d)?|attribution (\d\.\d)|^BY$", re.I), "CC BY"),
    (re.compile(r"public domain", re.I), "public domain"),
]


def find_licence(text: str) -> str | None:
    """Return the permissive licence that a text names, or None."""
    if FORBIDDEN.search(text):
        return None
    for pattern, name in LICENCES:
        if match := pattern.search(text):
            version = next((group for group in match.groups() if group), "")
            return f"{name} {version}".strip()
    return None
