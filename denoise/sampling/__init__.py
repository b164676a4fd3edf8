"""Solvers, guidance, operators and posterior samplers: pure functions over a denoiser or a velocity."""
