"""Initial weights of a training: those of another network, as far as the two are alike."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from denoise.cards import read_header
from denoise.models.conv_dae import ConvDAE
from denoise.models.dpcrn import SPECTRUM_INPUTS
from denoise.models.speech_flow import SpeechFlow
from denoise.priors.consistency_model import ConsistencyModel
from denoise.weights import load_tensors


def load_initial_weights(path: Path, module: nn.Module) -> None:
    """Load the weights of another network of the same or a similar architecture.

    Where a `ConvDAE` with one channel of sigma initialises one with maps of sigma, the weight of that channel is spread
    evenly over the maps. Given equal maps, the network then computes the same function. The sigma conditioning is
    dropped for blind networks, and new conditioning of blind ones begins without effect. The path of a `SpeechFlow`
    begins without effect, too. A `ConsistencyModel` begins with the weights of its teacher.

    Args:
        path: weights file.
        module: module that is trained; what the file lacks keeps its initialisation.

    Raises:
        WeightsError: the file shares no tensor with the module, or the shapes of others differ.
    """
    if isinstance(module, ConsistencyModel):
        module = module.denoiser
    load_tensors(path, module, partial=True)
    stored = read_header(path)["config"]
    if isinstance(module, ConvDAE) and module.config.sigma_maps > stored.get("sigma_maps", 1) == 1:
        weight = module.encoder[0][0].weight  # type: ignore[index]
        with torch.no_grad():
            weight[:, module.channels :] = weight[:, module.channels :].mean(dim=1, keepdim=True)
    if isinstance(module, SpeechFlow) and "floor_frames" in stored:  # whose further inputs were the noise floor
        with torch.no_grad():
            module.stem.weight[:, SPECTRUM_INPUTS:] = 0
