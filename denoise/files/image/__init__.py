"""Read and write image files frame by frame, in the integers of the file.

Each container has one class, which detects, reads and writes it and states its limits. To add a container, write its
class and append it to `denoise.files.image.registry.CONTAINERS`.

Example:
    ::

        with ImageReader("in.png") as reader:
            write_image("out.png", map(denoise, reader), reader.format)
"""

from denoise.files.image.orientation import apply_orientation
from denoise.files.image.reader import ImageReader, read_displayed, read_image
from denoise.files.image.registry import IMAGE_EXTENSIONS
from denoise.files.image.writer import write_image

__all__ = ["IMAGE_EXTENSIONS", "ImageReader", "apply_orientation", "read_displayed", "read_image", "write_image"]
