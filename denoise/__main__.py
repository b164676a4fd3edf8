"""``python -m denoise``."""

from denoise.cli import main

if __name__ == "__main__":
    main()
