"""The exceptions of `denoise`.

::

    DenoiseError          base of all exceptions that this package raises on purpose
    ├── InputError        a file, an array or a value that cannot be processed (also a ValueError)
    ├── ConfigError       a recipe, a setting or a name that is unknown or invalid (also a ValueError)
    └── WeightsError      a weights file that is missing, damaged or of another release

A message is one line: where, what came, what was expected, what to do. The command line prints it as it is.
"""


class DenoiseError(Exception):
    """Base of all exceptions that this package raises on purpose."""


class InputError(DenoiseError, ValueError):
    """A file, an array or a value that cannot be processed."""


class ConfigError(DenoiseError, ValueError):
    """A recipe, a setting or a name that is unknown or invalid."""


class WeightsError(DenoiseError):
    """A weights file that is missing, damaged, hostile or of another release."""
