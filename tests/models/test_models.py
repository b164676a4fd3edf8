"""Properties of single networks beyond the laws of all."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from denoise.errors import ConfigError
from denoise.models import conv_dae
from denoise.models.conv_dae import ConvDAE, ConvDAEConfig
from denoise.models.dense_ae import DenseAE, DenseAEConfig
from denoise.models.spectral_dae import SpectralDAE, SpectralDAEConfig
from denoise.nn.blocks import ChannelNorm
from denoise.registry import build

CONV = {"ndim": 1, "channels": 1, "widths": [4, 6], "kernels": [4, 5], "strides": [2, 3], "blocks": [1, 1]}
NET = {**CONV, "channels": 99, "out_channels": 66}
SPECTRAL = {"n_fft": 64, "hop": 16, "net": NET}
SETTINGS = {"conv-dae": CONV, "dense-ae": {"shape": [3, 8, 8], "widths": [20, 5]}, "spectral-dae": SPECTRAL}


def make(architecture: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    return build(architecture, {**SETTINGS[architecture], **changes}).eval().requires_grad_(False)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# -- the networks of the lecture


@pytest.fixture(scope="module")
def lecture() -> ConvDAE:
    torch.manual_seed(0)
    settings = ConvDAEConfig(
        ndim=1,
        channels=2,
        widths=(256, 512, 1024),
        kernels=(3, 3, 3),
        strides=(2, 2, 2),
        blocks=(0, 0, 0),
        skips=False,
    )
    return ConvDAE(settings).eval().requires_grad_(False)


def test_layers_of_the_convolutional_network_of_the_lecture(lecture: ConvDAE) -> None:
    def layers(kind: type[nn.Module], network: nn.Module) -> list[Any]:
        return [module for module in network.modules() if isinstance(module, kind)]

    down, up = layers(nn.Conv1d, lecture.encoder), layers(nn.ConvTranspose1d, lecture.decoder)
    assert [(c.in_channels, c.out_channels) for c in down] == [(2, 256), (256, 512), (512, 1024)]
    assert [(c.in_channels, c.out_channels) for c in up] == [(1024, 512), (512, 256), (256, 2)]
    assert {(c.kernel_size, c.stride) for c in down + up} == {((3,), (2,))}
    # one activation after each convolution but the last, whose samples may have any sign
    order = [type(m).__name__ for m in lecture.modules() if not list(m.children())]
    assert order == ["Conv1d", "Mish"] * 3 + ["ConvTranspose1d", "Mish"] * 2 + ["ConvTranspose1d"]
    weights = 2 * 3 * (2 * 256 + 256 * 512 + 512 * 1024)
    assert sum(p.numel() for p in lecture.parameters()) == weights + 256 + 512 + 1024 + 512 + 256 + 2


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 101, 256])
def test_the_convolutional_network_of_the_lecture_keeps_odd_lengths(lecture: ConvDAE, n: int) -> None:
    assert lecture(randn(1, 2, n)).shape == (1, 2, n)


def test_latents_of_the_convolutional_network_of_the_lecture_have_an_eighth_of_the_length(lecture: ConvDAE) -> None:
    z = randn(1, 2, 64)
    for stage in lecture.encoder:
        z = stage(z)
    assert z.shape == (1, 1024, 8)


def test_layers_of_the_dense_network_of_the_lecture() -> None:
    net = DenseAE(DenseAEConfig())
    sizes = [(m.in_features, m.out_features) for m in net.modules() if isinstance(m, nn.Linear)]
    assert sizes == [(3072, 512), (512, 256), (256, 64), (64, 256), (256, 512), (512, 3072)]
    order = [type(m).__name__ for m in net.modules() if not list(m.children())]
    half = ["Linear", "ELU", "Linear", "ELU", "Linear"]
    assert order == [*half, "Tanh", *half]
    assert net.encode(torch.rand(2, 3, 32, 32)).shape == (2, 64)


# -- the convolutional autoencoder


BIAS_FREE = {"bias": False, "activation": "relu"}


@pytest.mark.parametrize("scale", [0.01, 0.5, 2.0, 30.0])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("ndim", [1, 2])
def test_without_biases_the_output_scales_with_the_input(scale: float, residual: bool, ndim: int) -> None:
    net = make("conv-dae", **BIAS_FREE, residual=residual, ndim=ndim)
    x = randn(1, 1, *[31] * ndim)
    denoised = net(x)
    assert float(denoised.abs().max()) > 0.01
    torch.testing.assert_close(net(scale * x), scale * denoised, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("changes", [{}, {**BIAS_FREE, "activation": "mish"}, {**BIAS_FREE, "norm": True}])
def test_with_biases_or_other_activations_the_output_does_not_scale(changes: dict[str, Any]) -> None:
    net = make("conv-dae", **changes)
    x = randn(1, 1, 60)
    assert not torch.allclose(net(10 * x), 10 * net(x), rtol=1e-2, atol=1e-3)


def zeroed(net: Any) -> Any:
    for p in net.parameters():
        p.zero_()
    return net


@pytest.mark.parametrize("ndim", [1, 2])
def test_residual_adds_the_input_to_the_output(ndim: int) -> None:
    x = randn(2, 1, *[17] * ndim)
    assert torch.equal(zeroed(make("conv-dae", residual=True, ndim=ndim))(x), x)
    assert torch.equal(zeroed(make("conv-dae", residual=False, ndim=ndim))(x), torch.zeros_like(x))


def test_residual_sums_in_the_precision_of_the_input() -> None:
    net = zeroed(make("conv-dae", residual=True))
    x = randn(1, 1, 60)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net(x), x)


def test_skips_carry_detail_past_the_bottleneck() -> None:
    x = randn(1, 1, 60)
    for skips in (True, False):
        net = make("conv-dae", skips=skips)
        for p in net.encoder[1].parameters():
            p.zero_()  # nothing comes through the innermost stage
        constant = torch.equal(net(x), net(-x))
        assert constant is (not skips)


@pytest.mark.parametrize(
    ("kernel", "stride"), [(1, 1), (3, 1), (5, 1), (2, 2), (3, 2), (4, 2), (5, 2), (3, 3), (4, 3), (5, 3), (9, 4)]
)
@pytest.mark.parametrize("ndim", [1, 2])
def test_kernels_and_strides_keep_size_and_position(kernel: int, stride: int, ndim: int) -> None:
    """With all weights 1 the response to a click surrounds it, within the context."""
    net = make("conv-dae", ndim=ndim, widths=[1], kernels=[kernel], strides=[stride], blocks=[0], **BIAS_FREE)
    for p in net.parameters():
        p.fill_(1.0)
    for position in range(20, 20 + stride):
        x = torch.zeros(1, 1, *[41] * (ndim - 1), 41)
        x[..., position] = 1.0
        response = net(x)
        assert response.shape == x.shape
        field = response.flatten(0, -2).sum(dim=0).nonzero().flatten()
        assert int(field.min()) <= position <= int(field.max())
        assert max(position - int(field.min()), int(field.max()) - position) <= net.context


def test_output_channels_may_differ_from_input_channels() -> None:
    net = make("conv-dae", channels=5, out_channels=2)
    assert net(randn(3, 5, 20)).shape == (3, 2, 20)


def test_stereo_mixes_its_channels() -> None:
    net = make("conv-dae", channels=2)
    x = randn(1, 2, 60)
    other = x.clone()
    other[:, 1] += 1.0
    assert not torch.allclose(net(x)[:, 0], net(other)[:, 0])


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"ndim": 3}, "ndim"),
        ({"ndim": 0}, "ndim"),
        ({"widths": [4]}, "length"),
        ({"widths": [], "kernels": [], "strides": [], "blocks": []}, "length"),
        ({"blocks": [1]}, "length"),
        ({"kernels": [4, 2]}, "kernels"),
        ({"activation": "sine"}, "sine"),
        ({"residual": True, "out_channels": 3}, "residual"),
        ({"sigma_maps": 2}, "sigma_maps"),  # blind
        ({"sigma_maps": 3, "blind": False}, "sigma_maps"),
        ({"max_change": 5.0, "blind": False}, "max_change"),  # needs residual
        ({"max_change": 0.0, "blind": False, "residual": True}, "max_change"),
        ({"depth": 3}, "depth"),
        ({"channels": "one"}, "channels"),
        ({"widths": 4}, "widths"),
    ],
)
def test_invalid_settings_are_refused(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word) as error:
        make("conv-dae", **changes)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize(
    "changes",
    [
        {"dilation_cycle": 0},
        {"strides": [0, 1]},
        {"strides": [-1, 1]},
        {"kernels": [2, 5], "strides": [1, 3]},  # an even kernel at stride 1 would change the size
        {"widths": [-1, 6]},
        {"widths": [0, 6]},
        {"widths": [10**20, 6]},
        {"channels": 0},
        {"out_channels": 0},
        {"blocks": [-1, 1]},
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        make("conv-dae", **changes)


# -- the dense autoencoder


@pytest.mark.parametrize("tanh", ["latents", "output"])
def test_the_tanh_of_the_dense_network_limits_latents_or_outputs(tanh: str) -> None:
    net = make("dense-ae", tanh=tanh)
    for p in net.parameters():
        p.mul_(20.0)
    x = 10 * randn(4, 3, 8, 8)
    z, denoised = net.encode(x), net(x)
    limited, linear = (z, denoised) if tanh == "latents" else (2 * denoised - 1, z)
    assert -1 <= float(limited.min()) < -0.98
    assert 0.98 < float(limited.max()) <= 1
    assert float(linear.abs().max()) > 2


def test_the_likelihood_of_the_dense_network_is_the_squared_error_of_normalised_pixels() -> None:
    net = make("dense-ae", mean=0.4, std=0.2)
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    z = net.encode(x)
    normalised, output = (x - 0.4) / 0.2, net.decoder(z).reshape(x.shape)
    torch.testing.assert_close(z, net.encoder(normalised.reshape(3, -1)))
    nats = [
        sum(0.5 * float((a - b) ** 2) + 0.5 * math.log(2 * math.pi * 0.2**2) for a, b in zip(u, v, strict=True))
        for u, v in zip(normalised.reshape(3, -1), output.reshape(3, -1), strict=True)
    ]
    torch.testing.assert_close(-net.likelihood(z).log_prob(x), torch.tensor(nats), rtol=1e-4, atol=1e-3)


def test_the_dense_network_maps_grey_to_zero() -> None:
    net = make("dense-ae")
    for p in net.encoder.parameters():
        if p.ndim == 1:
            p.zero_()
    assert torch.equal(net.encode(torch.full((1, 3, 8, 8), 0.5)), torch.zeros(1, 5))
    assert torch.equal(zeroed(make("dense-ae"))(torch.rand(1, 3, 8, 8)), torch.full((1, 3, 8, 8), 0.5))


def test_a_small_tile_is_padded_by_repeating_its_edge() -> None:
    net = make("dense-ae")
    tile = torch.rand(1, 3, 5, 3, generator=torch.Generator().manual_seed(0))
    full = torch.cat([tile, *[tile[:, :, -1:]] * 3], dim=2)
    full = torch.cat([full, *[full[..., -1:]] * 5], dim=3)
    torch.testing.assert_close(net(tile), net(full)[..., :5, :3])


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"shape": (3, 8, 9)}, "square"), ({"std": math.inf}, "std inf"), ({"mean": math.nan}, "mean is nan")],
)
def test_settings_of_the_dense_network_that_do_not_fit_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        DenseAEConfig(**settings)


def test_the_dense_network_refuses_other_shapes() -> None:
    with pytest.raises(ConfigError, match="9x8"):
        make("dense-ae")(torch.zeros(1, 3, 9, 8))


def test_the_dense_network_refuses_an_unknown_activation() -> None:
    with pytest.raises(ConfigError, match="sine"):
        make("dense-ae", activation="sine")


# -- the spectral autoencoder


def make_amplifying() -> Any:
    """A spectral network whose mask would be far above 1 without its limit."""
    net = make("spectral-dae")
    for p in net.parameters():
        p.mul_(3.0)
    return net


def test_silence_stays_silent() -> None:
    assert torch.equal(make_amplifying()(torch.zeros(2, 1, 333)), torch.zeros(2, 1, 333))


@pytest.mark.parametrize("n", [1, 15, 16, 17, 1000])
def test_a_zero_output_of_the_network_passes_everything(n: int) -> None:
    x = randn(2, 1, n)
    torch.testing.assert_close(zeroed(make("spectral-dae"))(x), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [1e-4, 1.0])
def test_no_energy_is_added(seed: int, scale: float) -> None:
    net = make_amplifying()
    x = scale * randn(1, 1, 4000, seed=seed)
    x[..., :64] = x[..., -64:] = 0  # of one frame, so that each sample lies in all of its frames
    denoised = net(x)
    assert float(denoised.square().sum()) <= float(x.square().sum()) * (1 + 1e-5)
    assert not torch.allclose(denoised, x, atol=0.1 * scale)


def test_no_bin_is_amplified() -> None:
    """The response to a tone is a tone, without energy at other frequencies."""
    net = make_amplifying()
    t = torch.arange(4096)
    window = torch.hann_window(4096)
    denoised = net((window * torch.sin(2 * torch.pi * t / 8))[None, None])[0, 0]
    power = torch.fft.rfft(denoised).abs().square()
    near = power[512 - 64 * 4 : 512 + 64 * 4].sum()  # 4 bins of 64 samples
    assert float(power.sum() - near) < 1e-3 * float(power.sum())


def test_the_spectral_network_is_mono() -> None:
    assert make("spectral-dae").channels == 1


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"net": {**NET, "ndim": 2}}, "net"),
        ({"net": {**NET, "channels": 98}}, "99"),
        ({"net": {**NET, "out_channels": 99}}, "66"),
        ({"n_fft": 128}, "195"),
        ({"hop": 20}, "hop"),
        ({"hop": 64}, "hop"),
        ({"net": {**NET, "activation": "sine"}}, "sine"),
        ({"bins": 3}, "bins"),
    ],
)
def test_invalid_spectral_settings_are_refused(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        make("spectral-dae", **changes)


@pytest.mark.parametrize("changes", [{"hop": 0}, {"hop": -16}, {"compression": math.nan}], ids=str)
def test_spectral_numbers_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        make("spectral-dae", **changes)


def test_the_size_multiple_of_the_spectral_network_is_in_samples() -> None:
    net = SpectralDAE(
        SpectralDAEConfig(ConvDAEConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in NET.items()}), 64, 16)
    )
    assert net.size_multiple == 16 * 6


# -- blocks and the registry


def test_channel_norm_normalises_each_position_alone() -> None:
    norm = ChannelNorm(50)
    x = 3 + 5 * randn(2, 50, 4, 6)
    normalised = norm(x)
    torch.testing.assert_close(normalised.mean(dim=1), torch.zeros(2, 4, 6), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalised.std(dim=1, correction=0), torch.ones(2, 4, 6), atol=1e-4, rtol=0)
    torch.testing.assert_close(norm(x[..., 2:3, 3:4]), normalised[..., 2:3, 3:4])


def test_an_unknown_architecture_is_refused_with_a_list_of_all() -> None:
    with pytest.raises(ConfigError, match=r"here: architecture 'resnet'; expected one of .*conv-dae"):
        build("resnet", {}, "here")


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 2), (7, 8), (13, 21)])
def test_sizes_between_the_strides_are_mirrored(size: tuple[int, int]) -> None:
    """As NumPy mirrors; a repeated row of noise would look like an edge of the scene."""
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    padded = conv_dae._pad_to_multiple(x, 8).numpy()
    expected = np.pad(x.numpy(), [(0, 0), (0, 0), *((0, -n % 8) for n in size)], mode="reflect")
    np.testing.assert_array_equal(padded, expected)
