"""What audio files hold beside their sound: tags, pictures, chapters, markers, time codes, channel masks.

Within a container its blocks are copied as they are. Into another container go the text and the pictures; `AudioWriter`
names what could not be carried.
"""

from denoise.files.audio.metadata.codec import MetadataCodec
from denoise.files.audio.metadata.embed import Embedding, convert_metadata, embed
from denoise.files.audio.metadata.places import drop_places
from denoise.files.audio.metadata.registry import METADATA_CODECS, RIFF, metadata_codec, read_metadata, read_tags
from denoise.files.audio.metadata.tags import Tags

__all__ = [
    "METADATA_CODECS",
    "RIFF",
    "Embedding",
    "MetadataCodec",
    "Tags",
    "convert_metadata",
    "drop_places",
    "embed",
    "metadata_codec",
    "read_metadata",
    "read_tags",
]
