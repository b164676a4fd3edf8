"""Networks and codecs, one file each."""
