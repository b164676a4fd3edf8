"""Read and write image files frame by frame, in the integers of the file.

Each container has one class, which detects, reads and writes it and states its limits: `Png`, `Jpeg`,
`Tiff`, `WebP`, `Bmp` and `Gif`. To add a container, write its class and append it to
`denoise.files.image.registry.CONTAINERS`.

Example:
    ::

        with ImageReader("in.png") as reader:
            write_image("out.png", map(denoise, reader), reader.format)
"""

from denoise.files.image.reader import ImageReader, check_megapixels, read_image, upright
from denoise.files.image.writer import CONTAINERS, write_image

__all__ = ["IMAGE_EXTENSIONS", "ImageReader", "check_megapixels", "read_image", "upright", "write_image"]

IMAGE_EXTENSIONS = frozenset(CONTAINERS)
