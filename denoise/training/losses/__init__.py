"""Losses as functions of tensors. The steps that minimise them are in `denoise.training.objectives`."""
