"""Generative priors: modules that sample signals, with the capabilities of `denoise.protocols` that they declare."""
