"""The exceptions of `denoise`.

::

    DenoiseError          base of all exceptions that this package raises on purpose
    ├── InputError        a file, an array or a value that cannot be processed (also a ValueError)
    ├── ConfigError       a recipe, a setting or a name that is unknown or invalid (also a ValueError)
    ├── WeightsError      a weights file that is missing, damaged or of another release
    └── TrainingError     a training that ended without a usable model

A message is one line: where, what came, what was expected, what to do. The command line prints it as it is.
"""

from __future__ import annotations

import os
import sys
import traceback

OUT_OF_MEMORY = "Out of memory. Reduce --block, --tile, --samples or -n, or leave --perception out."
# PyTorch raises a plain RuntimeError where these allocators fail.
OUT_OF_MEMORY_MESSAGES = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "MPS backend out of memory",
)


class DenoiseError(Exception):
    """Base of all exceptions that this package raises on purpose."""


class InputError(DenoiseError, ValueError):
    """A file, an array or a value that cannot be processed."""


class ConfigError(DenoiseError, ValueError):
    """A recipe, a setting or a name that is unknown or invalid."""


class WeightsError(DenoiseError):
    """A weights file that is missing, damaged, hostile or of another release."""


class TrainingError(DenoiseError):
    """A training that ended without a usable model."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception reports that an allocation failed.

    Args:
        error: any exception.
    """
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")  # an error of torch implies that it is loaded
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in OUT_OF_MEMORY_MESSAGES)


def shorten(value: object) -> str:
    """Return the beginning of a value of any type as text in one line, for messages.

    Args:
        value: any value.
    """
    return " ".join(repr(value).split())[:60]


def describe_unexpected(error: Exception) -> str:
    """Describe an exception in one line; print the traceback of an unexpected one if DENOISE_DEBUG is set.

    Args:
        error: any exception.
    """
    if isinstance(error, DenoiseError):
        return str(error)
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    if os.environ.get("DENOISE_DEBUG"):
        traceback.print_exception(error)
    text = " ".join(str(error).split())[:200]
    return (
        f"{type(error).__name__}: {text}. This is a bug in denoise; please report it "
        "(DENOISE_DEBUG=1 prints the traceback)."
    )
