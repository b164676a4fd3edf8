"""Lossy image codecs whose transform is a flow, or an autoencoder, and what repeated coding does to images.

python recipes/flow-codec/codec.py train flow flow.safetensors --data DIR
python recipes/flow-codec/codec.py train autoencoder autoencoder.safetensors --data DIR
python recipes/flow-codec/codec.py drift flow.safetensors autoencoder.safetensors --data DIR -o drift.png

Both transforms are trained on the same rate and distortion, with the same entropy model; they differ in that the flow
is invertible. Coding: latents are rounded to integers and decoded, and the image is rounded to 8 bits. The flow maps
the decoded image back to the same integers, so that nothing changes any more after the first round.

Reference:
    Lossy Image Compression with Normalizing Flows, 2020, arXiv:2008.10486; End-to-end Optimized Image Compression,
    2016, arXiv:1611.01704 (autoencoder, uniform noise in place of rounding).
"""

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Callable
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from denoise.colour import luma
from denoise.files.find import find_files
from denoise.files.image import IMAGE_EXTENSIONS, read_image
from denoise.metrics import psnr
from denoise.nn.invertible import ActNorm, InvertibleConv
from denoise.noise import generator_for
from denoise.priors.multiscale_flow import MultiscaleFlowConfig, build_flow
from denoise.training.data import ImagePatches, to_8_bit_rgb
from denoise.training.image_recipe import ImageData

PATCH, SIDE = 32, 256  # of training, and of test images
LEVELS = 3
WIDTH = 32  # features of the networks
LATENTS = 64  # channels of the autoencoder, as many numbers as pixels
ROUNDS = 15
LAMBDA = 0.01  # bits that one unit of squared error of 8-bit pixels is worth
FIRST_LOG_GAIN = 2.7  # of the flow: rounds to steps of 17 levels
MIN_PROBABILITY = 2.0**-24  # of an integer
SHOWN = slice(96, 176)  # rows and columns of the figure
Kind = Literal["flow", "autoencoder"]
Step = Callable[[Tensor], Tensor]
app = typer.Typer()


class TransformCodec(nn.Module):
    """A transform to latents that are rounded, with a logistic distribution for each of their channels.

    Args:
        channels: channels of each group of latents, which are flattened one after another.
        positions: positions of each group.
    """

    channel: Tensor

    def __init__(self, channels: list[int], positions: list[int]) -> None:
        super().__init__()
        counts = torch.tensor([p for n, p in zip(channels, positions, strict=True) for _ in range(n)])
        self.register_buffer("channel", torch.arange(sum(channels)).repeat_interleave(counts), persistent=False)
        self.loc = nn.Parameter(torch.zeros(sum(channels)))
        self.log_scale = nn.Parameter(torch.ones(sum(channels)))

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Return latents before rounding of grey images from 0 to 1, (batch, 1, height, width) to (batch, latents)."""

    @abstractmethod
    def decode(self, y: Tensor) -> Tensor:
        """Return the images of latents."""

    def bits(self, y: Tensor) -> Tensor:
        """Return the ideal code length of latents in bits, (batch, latents) to (batch,)."""
        centred, inverse_scale = y - self.loc[self.channel], (-self.log_scale[self.channel]).exp()
        upper, lower = (inverse_scale * (centred + half) for half in (0.5, -0.5))
        sign = -torch.sign(centred)  # of the tail in which the difference is exact
        p = (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()
        p = torch.where(centred == 0, torch.sigmoid(upper) - torch.sigmoid(lower), p)
        return -p.clamp_min(MIN_PROBABILITY).log2().sum(dim=1)

    def round_trip(self, x: Tensor) -> Tensor:
        """Return 8-bit images of 0 to 1 after coding."""
        return to_8_bit(self.decode(self.encode(x).round()))


class FlowCodec(TransformCodec):
    """The transform is a Glow, whose convolutions fit every size; gains set the precision of its channels.

    It begins as a Haar transform, which is a codec already.

    Args:
        side: side of the images.
    """

    def __init__(self, side: int) -> None:
        config = MultiscaleFlowConfig(
            (1, side, side), levels=LEVELS, steps=2, width=WIDTH, blocks=1, dequantisation="none"
        )
        flow = build_flow(config)
        halves = [(channels - channels // 2, prod(space)) for channels, *space in flow.shapes]
        halves[-1] = (flow.shapes[-1][0], halves[-1][1])  # the last level keeps all channels
        super().__init__([n for n, _ in halves], [positions for _, positions in halves])
        self.flow, self.log_gain = flow, nn.Parameter(torch.full((len(self.loc),), FIRST_LOG_GAIN))
        self._begin_as_wavelet()

    def encode(self, x: Tensor) -> Tensor:
        """Return latents before rounding; see `TransformCodec.encode`."""
        return self.flow()(x - 0.5) * self.log_gain[self.channel].exp()

    def decode(self, y: Tensor) -> Tensor:
        """Return the images of latents."""
        return self.flow().inv(y * (-self.log_gain[self.channel]).exp()) + 0.5

    def _begin_as_wavelet(self) -> None:
        """Set the layers so that the untrained flow is an orthonormal Haar transform in several levels."""
        for level in self.flow.levels:
            first, *others = [layer for layer in level.modules() if isinstance(layer, InvertibleConv)]
            set_matrix(first, haar(len(first.signs) // 4))
            for layer in others:
                set_matrix(layer, torch.eye(len(layer.signs)))
            for layer in level.modules():
                if isinstance(layer, ActNorm):
                    layer.is_initialised.fill_(True)


def haar(channels: int) -> Tensor:
    """Return the Haar transform of squeezed pixels, (4 * channels, 4 * channels), with the sums before the details."""
    square = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
    return torch.kron(torch.eye(channels), square).view(channels, 4, -1).transpose(0, 1).flatten(0, 1)


@torch.no_grad()
def set_matrix(layer: InvertibleConv, matrix: Tensor) -> None:
    """Let an invertible convolution multiply the channels by a matrix, (channels, channels)."""
    permutation, lower, upper = torch.linalg.lu(matrix)
    layer.permutation.copy_(permutation)
    layer.signs.copy_(upper.diagonal().sign())
    layer.lower.copy_(lower.tril(-1))
    layer.upper.copy_(upper.triu(1))
    layer.log_diagonal.copy_(upper.diagonal().abs().log())


class AutoencoderCodec(TransformCodec):
    """The transforms are strided convolutions and transposed ones.

    Args:
        side: side of the images.
    """

    def __init__(self, side: int) -> None:
        self.side = side // 2**LEVELS
        super().__init__([LATENTS], [self.side**2])
        widths = [1, *[2 * WIDTH] * (LEVELS - 1), LATENTS]
        pairs = [*pairwise(widths)]
        down = [nn.Conv2d(a, b, 5, stride=2, padding=2) for a, b in pairs]
        up = [nn.ConvTranspose2d(b, a, 5, stride=2, padding=2, output_padding=1) for a, b in reversed(pairs)]
        self.down, self.up = (
            nn.Sequential(*[layer for conv in convs for layer in (conv, nn.LeakyReLU(0.2))][:-1])
            for convs in (down, up)
        )
        self.log_gain = nn.Parameter(torch.tensor(3.0))

    def encode(self, x: Tensor) -> Tensor:
        """Return latents before rounding; see `TransformCodec.encode`."""
        return (self.down(x - 0.5) * self.log_gain.exp()).flatten(1)

    def decode(self, y: Tensor) -> Tensor:
        """Return the images of latents."""
        return self.up(y.view(len(y), LATENTS, self.side, self.side) * (-self.log_gain).exp()) + 0.5


CODECS: dict[str, Callable[[int], TransformCodec]] = {"flow": FlowCodec, "autoencoder": AutoencoderCodec}


def to_8_bit(x: Tensor) -> Tensor:
    """Return images of 0 to 1 on 256 levels."""
    return (255 * x.clamp(0, 1)).round() / 255


def rate_and_distortion(codec: TransformCodec, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return bits for each pixel and the squared error of 8-bit pixels, with uniform noise in place of rounding."""
    y = codec.encode(x)
    noisy = y + torch.rand_like(y) - 0.5
    return codec.bits(noisy).mean() / x[0].numel(), 255**2 * F.mse_loss(codec.decode(noisy), x)


def fit(codec: TransformCodec, batches: Callable[[int], Tensor], steps: int) -> TransformCodec:
    """Train a codec by rate and distortion.

    Args:
        codec: codec of patches.
        batches: returns the patches of a step.
        steps: steps of Adam.
    """
    scalars = [p for name, p in codec.named_parameters() if name in ("loc", "log_scale", "log_gain")]
    others = [p for name, p in codec.named_parameters() if name not in ("loc", "log_scale", "log_gain")]
    optimizer = torch.optim.Adam([{"params": others, "lr": 2e-3}, {"params": scalars, "lr": 3e-2}])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        rate, distortion = rate_and_distortion(codec, batches(step))
        optimizer.zero_grad()
        (rate + LAMBDA * distortion).backward()
        nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step + 1 == steps:
            print(f"step {step}  {rate.item():.3f} bits/pixel  squared error {distortion.item():.1f}", flush=True)
    return codec.eval().requires_grad_(False)


def jpeg(x: Tensor, quality: int) -> tuple[Tensor, int]:
    """Return a grey image of 0 to 1, (1, 1, height, width), after JPEG, and the bits of the file."""
    buffer = io.BytesIO()
    Image.fromarray((255 * x[0, 0]).round().byte().numpy()).save(buffer, "jpeg", quality=quality)
    pixels = torch.frombuffer(bytearray(Image.open(buffer).tobytes()), dtype=torch.uint8)
    return pixels.view_as(x).float() / 255, 8 * buffer.getbuffer().nbytes


def shifted(step: Step, rounds: int) -> list[Step]:
    """Return the steps of rounds in which the image lies elsewhere: shifted by one more pixel each, cyclically."""
    return [
        lambda x, i=i: step(x.roll((i, i), dims=(2, 3))).roll((-i, -i), dims=(2, 3))  # type: ignore[misc]
        for i in range(rounds)
    ]


def repeat(steps: list[Step], x: Tensor) -> list[Tensor]:
    """Return an image after each of several rounds."""
    results = []
    for step in steps:
        x = step(x)
        results.append(x)
    return results


def read_crops(folder: Path) -> list[Tensor]:
    """Return the centres of photographs in grey, (1, 1, 256, 256) each, 8 bits from 0 to 1."""
    crops = []
    for path in find_files(folder, ("",), IMAGE_EXTENSIONS):
        x = luma(to_8_bit_rgb(read_image(path)).float() / 255)[:1]
        top, left = ((n - SIDE) // 2 for n in x.shape[-2:])
        crops.append(to_8_bit(x[None, :, top : top + SIDE, left : left + SIDE]))
    return crops


@app.command()
def train(
    kind: Annotated[Kind, typer.Argument(help="Transform.")],
    out: Annotated[Path, typer.Argument(help="Weights to write, .safetensors.")],
    data: Annotated[Path, typer.Option(help="Root of the data folders.", metavar="DIR")],
    steps: Annotated[int, typer.Option(help="Steps of the training.")] = 3000,
    batch: Annotated[int, typer.Option(help="Patches in each of them.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
) -> None:
    """Train a codec on patches of photographs."""
    torch.manual_seed(seed)
    settings = ImageData(("image/photos/train",), patch=PATCH, sigma=(0.0, 0.0))
    source = ImagePatches(settings, data, channels=1)
    codec = fit(CODECS[kind](PATCH), lambda step: source.batch(batch, generator_for(seed, step)).clean, steps)
    save_file(codec.state_dict(), out)


@app.command()
def drift(
    flow: Annotated[Path, typer.Argument(help="Weights of the flow.")],
    autoencoder: Annotated[Path, typer.Argument(help="Weights of the autoencoder.")],
    data: Annotated[Path, typer.Option(help="Root of the data folders.", metavar="DIR")],
    out: Annotated[Path, typer.Option("-o", "--out", help="PNG to write.")],
    rounds: Annotated[int, typer.Option(help="Rounds of coding.", min=1)] = ROUNDS,
) -> None:
    """Code test photographs again and again, print the PSNR by the round, and draw it."""
    crops = read_crops(data / "image/photos/test")
    codecs: dict[str, TransformCodec] = {}
    for kind, file in (("flow", flow), ("autoencoder", autoencoder)):
        codecs[kind] = CODECS[kind](SIDE).eval().requires_grad_(False)
        codecs[kind].load_state_dict(load_file(file))
    rates = {
        kind: sum(float(codec.bits(codec.encode(x).round())) / x.numel() for x in crops) / len(crops)
        for kind, codec in codecs.items()
    }
    sizes = {q: sum(jpeg(x, q)[1] / x.numel() for x in crops) / len(crops) for q in range(2, 96)}
    quality = min(sizes, key=lambda q: abs(sizes[q] - rates["flow"]))
    rates["JPEG"] = sizes[quality]
    steps: dict[str, Step] = {kind: codec.round_trip for kind, codec in codecs.items()}
    steps["JPEG"] = lambda x: jpeg(x, quality)[0]
    curves: dict[str, list[float]] = {}
    index = max(range(len(crops)), key=lambda i: float(crops[i][..., SHOWN, SHOWN].std()))  # with most to see
    shown = {"original": crops[index]}
    print(f"{len(crops)} photographs, {SIDE} x {SIDE}, grey; JPEG quality {quality}")
    print("| codec | bits/dim | PSNR, round 1 | round 2 | round 5 | round 15 | change |\n|---|---|---|---|---|---|---|")
    for name, step in steps.items():
        for label, sequence in ((name, [step] * rounds), (f"{name}, shifted", shifted(step, rounds))):
            results = [repeat(sequence, x) for x in crops]
            decibels = [[float(psnr(y, x)) for y in each] for each, x in zip(results, crops, strict=True)]
            curves[label] = torch.tensor(decibels).mean(dim=0).tolist()
            shown |= {
                f"{label}, round {n}": results[index][n - 1] for n in ((1, rounds) if label == name else (rounds,))
            }
            a, b, c, d = (curves[label][min(n, rounds) - 1] for n in (1, 2, 5, rounds))
            print(f"| {label} | {rates[name]:.3f} | {a:.2f} | {b:.2f} | {c:.2f} | {d:.2f} | {d - a:+.2f} |", flush=True)
    draw(curves, shown, out)


def draw(curves: dict[str, list[float]], shown: dict[str, Tensor], out: Path) -> None:
    """Draw the PSNR by the round, and parts of an image before and after."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 2))
    axis = left.subplots()
    for name, values in curves.items():
        style = "--" if "shifted" in name else "-"
        axis.plot(range(1, len(values) + 1), values, style, label=name)
    axis.set(xlabel="rounds", ylabel="PSNR, dB", title="mean PSNR")
    axis.legend()
    grid: Any = right.subplots(2, 5)
    for each, (name, image) in zip(grid.flat, shown.items(), strict=True):
        each.imshow(image[0, 0, SHOWN, SHOWN], cmap="gray", vmin=0, vmax=1)
        each.set_title(name, fontsize=8)
        each.axis("off")
    figure.savefig(out, dpi=80)


if __name__ == "__main__":
    app()
