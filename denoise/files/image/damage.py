"""Translation of what image decoders raise and log."""

from __future__ import annotations

import logging
import lzma
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image as Pillow

from denoise.errors import InputError

DAMAGE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, ArithmeticError, LookupError, TypeError, AttributeError,
    RuntimeError, AssertionError, struct.error, zlib.error, lzma.LZMAError,
)  # fmt: skip
"""What Pillow, pillow-heif, zlib, lzma and struct raise for damaged files."""


class _LogCollector(logging.Handler):
    """Collects what Pillow logs, which Python would print otherwise."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def translate_errors(name: str, remarks: list[str]) -> Iterator[None]:
    """Translate what decoders raise into `InputError`, and collect what they warn of.

    Args:
        name: file, and frame if any, that errors begin with.
        remarks: list to which new warnings and log lines are appended.

    Raises:
        InputError: the block raised an error that a damaged, too large or unsupported file causes.
    """
    collector, logger = _LogCollector(), logging.getLogger("PIL")
    logger.addHandler(collector)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except (MemoryError, Pillow.DecompressionBombError) as error:
        raise InputError(f"{name}: is too large for memory or Pillow; expected a smaller image. Crop it.") from error
    except DAMAGE_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{name}: the image is cut off, damaged or of a rare kind ({reason}); expected a whole, common file. "
            "Get another copy or convert it."
        ) from error
    finally:
        logger.removeHandler(collector)
    lines = [str(w.message) for w in caught if not issubclass(w.category, Pillow.DecompressionBombWarning)]
    remarks.extend(line for text in lines + collector.lines if (line := " ".join(text.split())) not in remarks)
