"""Decoding and encoding of audio and image files; atomic writes."""
