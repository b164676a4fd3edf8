"""Make the scripts of recipes/benchmarks importable, as they are when they are run."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3] / "recipes/benchmarks"))
