"""Point clouds in files: PLY and XYZ. A file that is written again keeps every byte that is no changed coordinate."""

from denoise.files.points.container import PointFile, require_finite_points
from denoise.files.points.files import POINT_EXTENSIONS, read_points, write_points

__all__ = ["POINT_EXTENSIONS", "PointFile", "read_points", "require_finite_points", "write_points"]
