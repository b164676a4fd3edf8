"""``python -m denoise``."""

from denoise.cli import main

main()
