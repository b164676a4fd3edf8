"""Make the scripts of recipes/data importable, as they are when they are run."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3] / "recipes/data"))
