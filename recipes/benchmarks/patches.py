"""Compare priors of patches and other denoisers on photographs with white noise.

python recipes/benchmarks/patches.py --data CBSD68 --train DIR

The Gaussian mixture is fitted by scikit-learn to clean patches of the same size and photographs as those of the flow.
It restores images by EPLL, and in the place of the flow, in one step at four scales.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from common import (
    JsonFile,
    Row,
    Threads,
    describe_clock,
    describe_environment,
    report,
    show_progress,
    use_threads,
)
from image import Denoise, Noise, Pixels, bm3d, degrade, quality, read_clean
from numpy.typing import NDArray

SIDE = 8  # pixels of a patch
N_LIKELIHOOD = 4000  # patches whose density is measured
MIXTURE, EPLL = "gmm-one-step", "gmm-epll"
PENALTIES = (1, 4, 8, 16, 32)  # of EPLL, relative to the precision of the noise
DRAW = ":draw"  # suffix of a model of which one posterior sample is measured
DIGITS = {"PSNR": 2, "SSIM": 3, "-log p, nats/entry": 3, "s/MP": 1}


class MixturePrior:
    """A Gaussian mixture of patches as a `denoise.protocols.PatchPrior`, as far as it is needed here.

    Args:
        weights: weights of the components, (k,).
        means: their means, (k, entries).
        covariances: their covariances, (k, entries, entries).

    Reference:
        From Learning Models of Natural Image Patches to Whole Image Restoration, Zoran and Weiss, 2011.
    """

    def __init__(self, weights: NDArray[Any], means: NDArray[Any], covariances: NDArray[Any]) -> None:
        import torch

        self.log_weights, self.means = (torch.from_numpy(x).float() for x in (np.log(weights), means))
        variances, axes = torch.linalg.eigh(torch.from_numpy(covariances).double())
        self.variances, self.axes = variances.clamp_min(0).float(), axes.float()  # (k, n) and (k, n, n)
        self.event_shape = torch.Size([3, SIDE, SIDE])

    def component_log_probs(self, x: Any, sigma: float) -> Any:
        """Return log-weight plus log-density of flat noisy patches for each component, (batch, k)."""
        import torch

        variances = self.variances + sigma**2
        whitening = self.axes / variances.sqrt()[:, None]
        y = x @ whitening.permute(1, 0, 2).flatten(1)  # of all components at once
        offset = torch.einsum("kn,kni->ki", self.means, whitening).flatten()
        distance = (y - offset).square().unflatten(1, (len(self.means), -1)).sum(dim=2)
        return self.log_weights - 0.5 * (distance + (2 * torch.pi * variances).log().sum(dim=1))

    def noisy_log_prob(self, x: Any, sigma: Any) -> Any:
        """Return log-densities of noisy patches, (batch, *event_shape) to (batch,)."""
        return self.component_log_probs(x.flatten(1), float(sigma[0])).logsumexp(dim=1)

    def __call__(self, x: Any, sigma: Any) -> Any:
        """Return the linear estimate of each patch by its most probable component."""
        import torch

        flat, level = x.float().flatten(1), float(sigma[0])
        best = self.component_log_probs(flat, level).argmax(dim=1)
        denoised = torch.empty_like(flat)
        for k in best.unique().tolist():
            gain = self.variances[k] / (self.variances[k] + level**2)
            deviation = (flat[best == k] - self.means[k]) @ self.axes[k]
            denoised[best == k] = self.means[k] + (gain * deviation) @ self.axes[k].T
        return denoised.reshape(x.shape)


def fit_mixture(recipe: Path, train: Path, components: int, n: int, iterations: int, seed: int) -> MixturePrior:
    """Fit a mixture to clean patches of the photographs of a recipe, or read the fit of an earlier run."""
    import torch
    from sklearn.mixture import GaussianMixture

    from denoise.sampling.patches import cut_patches
    from denoise.training.data import ImagePatches
    from denoise.training.recipe import load_recipe

    file = Path(f"{MIXTURE}-{components}-{n}-{iterations}-{seed}.npz")
    if not file.exists():
        settings = load_recipe(recipe).image
        assert settings is not None
        source, generator = ImagePatches(settings, train), torch.Generator().manual_seed(seed)
        images = [source.batch(16, generator).clean for _ in range(1 + n * SIDE**2 // (16 * settings.patch**2))]
        patches = cut_patches(torch.cat(images), SIDE, SIDE).flatten(0, 2)
        patches = patches[torch.randperm(len(patches), generator=generator)[:n]]
        levels = patches + (torch.rand(patches.shape, generator=generator) - 0.5) / 255  # dequantised
        mixture = GaussianMixture(components, max_iter=iterations, reg_covar=1e-6, random_state=seed)
        mixture.fit(levels.flatten(1).numpy())
        np.savez(file, weights=mixture.weights_, means=mixture.means_, covariances=mixture.covariances_)
    return MixturePrior(*(np.load(file)[name] for name in ("weights", "means", "covariances")))


def model_denoiser(name: str) -> Denoise:
    """Return a model by its name or file; with the suffix ``:draw``, a posterior sample of it."""
    from denoise import ImagePipeline
    from denoise.signals import Image

    pipeline, perception = ImagePipeline(name.removesuffix(DRAW), device="cpu"), 1.0 if name.endswith(DRAW) else None

    def denoise(noisy: Pixels, sigma: float) -> Any:
        level = None if pipeline.card.blind else sigma
        return pipeline.frame(Image(noisy), sigma=level, perception=perception, seed=0 if perception else None).pixels

    return denoise


def patch_denoiser(prior: Any) -> Denoise:
    """Return the removal of noise by a prior of patches in one step at four scales, in float32."""
    import torch

    from denoise.priors.network import PatchNetwork

    network = PatchNetwork(prior)

    def denoise(noisy: Pixels, sigma: float) -> Any:
        x = torch.from_numpy(noisy).permute(2, 0, 1)[None]
        return network(x, torch.tensor([sigma]))[0].permute(1, 2, 0).numpy()

    return denoise


def epll_denoiser(prior: Any) -> Denoise:
    """Return the removal of noise by the expected patch log-likelihood: half-quadratic splitting over all patches.

    Reference:
        From Learning Models of Natural Image Patches to Whole Image Restoration, Zoran and Weiss, 2011.
    """
    import torch

    from denoise.sampling.patches import denoise_patches

    def denoise(noisy: Pixels, sigma: float) -> Any:
        y = torch.from_numpy(noisy).permute(2, 0, 1)[None]
        x = y
        for penalty in PENALTIES:
            patches = denoise_patches(prior, x, torch.tensor([sigma / penalty**0.5]))
            x = (y + penalty * patches) / (1 + penalty)
        return x[0].permute(1, 2, 0).numpy()

    return denoise


def mean_nats(prior: Any, noisy: list[Pixels], sigma: float) -> float:
    """Return the mean negative log-density of noisy patches, nats for each entry."""
    import torch

    from denoise.sampling.patches import cut_patches

    images = [torch.from_numpy(x).permute(2, 0, 1)[None] for x in noisy]
    patches = torch.cat([cut_patches(x, SIDE, SIDE).flatten(0, 2) for x in images])
    patches = patches[torch.linspace(0, len(patches) - 1, min(N_LIKELIHOOD, len(patches))).long()]
    with torch.no_grad():
        log_prob = prior.noisy_log_prob(patches, torch.full((len(patches),), sigma))
    return -float(log_prob.mean()) / patches[0].numel()


def main(
    data: Annotated[Path, typer.Option(help="A folder of clean images in colour.", metavar="DIR")],
    flow: Annotated[str, typer.Option(help="Name or .safetensors file of the prior of patches.")] = "patch-flow",
    models: Annotated[
        str, typer.Option(help=f"Further models, comma separated; {DRAW} is one posterior sample.")
    ] = f"vae-image,gaussian,gaussian{DRAW}",
    recipe: Annotated[Path, typer.Option(help="Recipe of the prior, of which the mixture takes the photographs.")] = (
        Path(__file__).parents[1] / "patch-flow" / "recipe.toml"
    ),
    train: Annotated[
        Path | None, typer.Option(help="Folder of the training data; without, no mixture.", metavar="DIR")
    ] = None,
    components: Annotated[int, typer.Option(help="Components of the mixture.")] = 200,
    patches: Annotated[int, typer.Option(help="Patches that the mixture is fitted to.")] = 200_000,
    iterations: Annotated[int, typer.Option(help="Iterations of the fit.")] = 20,
    has_bm3d: Annotated[bool, typer.Option("--bm3d/--no-bm3d", help="Whether BM3D is measured.")] = True,
    sigma: Annotated[float, typer.Option(help="Level of the noise, 0 to 255.")] = 25,
    limit: Annotated[int, typer.Option(help="First images of the folder.", min=1)] = 12,
    seed: Annotated[int, typer.Option(help="Seed of the noise and of the mixture.")] = 0,
    threads: Threads = 1,
    json_file: JsonFile = None,
) -> None:
    """Measure PSNR, SSIM, the density of noisy patches and seconds; print a table in Markdown and the protocol."""
    clock = use_threads(threads)
    import torch

    from denoise.files.find import find_files
    from denoise.files.image import IMAGE_EXTENSIONS
    from denoise.noise import generator_for
    from denoise.registry import load

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    level = sigma / 255
    files = find_files(data, (".",), IMAGE_EXTENSIONS)[:limit]
    clean = [read_clean(path, grey=False) for path in files]
    noisy = [
        degrade(x, level, generator_for(seed, i, round(sigma)), Noise.GAUSSIAN, clipped=False)
        for i, x in enumerate(clean)
    ]
    priors: dict[str, Any] = {}
    systems: dict[str, Denoise] = {"noisy": lambda noisy, sigma: noisy}
    if flow:
        prior, _ = load(flow, kind="prior", modality="image")
        priors["patch-flow"], systems["patch-flow"] = prior, model_denoiser(flow)
    if train is not None:
        mixture = fit_mixture(recipe, train, components, patches, iterations, seed)
        priors[MIXTURE], systems[MIXTURE] = mixture, patch_denoiser(mixture)
        systems[EPLL] = epll_denoiser(mixture)
    systems |= {name: model_denoiser(name) for name in models.split(",") if name}
    if has_bm3d:
        systems["bm3d"] = bm3d(threads).denoise
    rows: list[Row] = []
    for name, denoise in systems.items():
        for path, x, y in show_progress([*zip(files, clean, noisy, strict=True)], name):
            started = clock()
            restored = denoise(y, level)
            seconds = (clock() - started) * 1e6 / x[..., 0].size
            measured = quality(np.clip(restored, 0, 1), x)
            rows.append({"system": name, "file": path.name, "PSNR": measured["psnr"], "SSIM": measured["ssim"]})
            rows[-1]["s/MP"] = seconds
    table = []
    for name in systems:
        group = [row for row in rows if row["system"] == name]
        means = {key: float(np.mean([row[key] for row in group])) for key in ("PSNR", "SSIM", "s/MP")}
        nats = mean_nats(priors[name], noisy, level) if name in priors else None
        table.append(
            {"system": name, "PSNR": means["PSNR"], "SSIM": means["SSIM"], "-log p, nats/entry": nats}
            | {"s/MP": means["s/MP"]}
        )
    protocol = (
        f"first {len(files)} images of {data.resolve().name} in colour, white Gaussian noise of {sigma:g} / 255 in "
        f"float, unclipped, seed {seed}, true sigma given to all that take one, output clipped; {MIXTURE}, {EPLL}: "
        f"{components} components, {iterations} iterations of scikit-learn on {patches} patches, one step at four "
        f"scales as of patch-flow, and EPLL with penalties {PENALTIES}; -log p: density of the noisy "
        f"patches; {DRAW}: one posterior sample; s/MP: "
        f"{describe_clock(threads)}; {describe_environment(['torch', 'bm3d', 'scikit-learn'])}"
    )
    report(table, protocol, DIGITS, json_file, {"rows": rows})


if __name__ == "__main__":
    typer.run(main)
