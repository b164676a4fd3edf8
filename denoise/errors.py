"""The errors of `denoise`.

::

    DenoiseError          every error that this package raises on purpose
    ├── InputError        a file, an array or a value that cannot be processed (also a ValueError)
    ├── ConfigError       a recipe, a setting or a name that does not exist or does not fit (also a ValueError)
    └── WeightsError      a weights file that is missing, damaged or of another make

A message says where, what came, what was expected and what to do, in one line, so that the command
line can print it as it is.
"""


class DenoiseError(Exception):
    """Base of all errors raised on purpose by this package."""


class InputError(DenoiseError, ValueError):
    """A file, an array or a value that cannot be processed."""


class ConfigError(DenoiseError, ValueError):
    """A recipe, a setting or a name that does not exist or does not fit."""


class WeightsError(DenoiseError):
    """A weights file that is missing, damaged, hostile or of another make."""
