"""What the codec of a prior says about signals: latents, reconstructions, attributes."""

from __future__ import annotations

from torch import Tensor

from denoise.errors import ConfigError
from denoise.metrics import r2
from denoise.models.spectral_codec import SpectralCodec
from denoise.pipelines.latent_space import attribute_direction
from denoise.pipelines.prior_base import LoadedPrior, as_batch, as_generator, check_count
from denoise.priors.latent import LatentPrior
from denoise.protocols import Progress, StochasticCodec


class CodecPipeline(LoadedPrior):
    """The part of `denoise.pipelines.prior.PriorPipeline` for priors over the latents of a codec."""

    @property
    def samples_latents(self) -> bool:
        """Whether the prior has a codec whose latents are random variables."""
        return isinstance(self.model, LatentPrior) and isinstance(self.model.codec, StochasticCodec)

    def decodings(self, x: Tensor, n: int, *, seed: int = 0) -> Tensor:
        """Decode several samples of the latents of one signal, or its only latents once.

        Args:
            x: signal, (1, *shape).
            n: number of samples; 1 if the latents are no random variables.
            seed: seed of the latents' noise.

        Returns:
            Signals, (n, *shape).

        Raises:
            ConfigError: the prior has no codec, or one whose latents are no random variables and n is more than 1.
        """
        codec, generator, x = self._latent_prior().codec, as_generator(seed), self._as_signals(x)
        check_count(n)
        if isinstance(codec, StochasticCodec):
            return self._map(
                lambda batch: codec.decode(codec.sample_posterior(batch, generator)), x.expand(n, *x.shape[1:])
            )
        if n > 1:
            raise ConfigError(
                f"n is {n}; expected 1, as the latents of {self.card.name} are not random. "
                "Leave it out, or use a VAE or an AAE."
            )
        return self.reconstruct(x)

    def latents(self, x: Tensor, *, progress: Progress | None = None) -> Tensor:
        """Return the latents of signals.

        Args:
            x: signals, (n, *shape).
            progress: called with the fraction done.

        Returns:
            Latents, (n, *latent_shape).

        Raises:
            ConfigError: the prior has no codec.
            InputError: a shape does not fit.
        """
        return self._map(self._latent_prior().codec.encode, self._as_signals(x), progress)

    def decode_latents(self, z: Tensor, *, progress: Progress | None = None) -> Tensor:
        """Return the signals of latents.

        Args:
            z: latents, (n, *latent_shape).
            progress: called with the fraction done.

        Returns:
            Signals, (n, *shape).

        Raises:
            ConfigError: the prior has no codec.
            InputError: a shape does not fit.
        """
        codec = self._latent_prior().codec
        return self._map(codec.decode, as_batch(z, codec.latent_shape, "latents"), progress)

    def attribute(self, examples: Tensor, others: Tensor) -> Tensor:
        """Return the direction of an attribute in the latents: their mean with it minus their mean without it.

        Args:
            examples: signals with the attribute, (n, *shape).
            others: signals without it, alike in everything else, (m, *shape).

        Returns:
            Direction, (1, *latent_shape).

        Raises:
            ConfigError: the prior has no codec.
            InputError: a shape does not fit.
        """
        return attribute_direction(self.latents(examples), self.latents(others))

    def edit(self, x: Tensor, direction: Tensor, strength: float = 1.0, *, progress: Progress | None = None) -> Tensor:
        """Add an attribute to signals, or remove it: encode them, move their latents along a direction, decode.

        Args:
            x: signals, (n, *shape).
            direction: direction of `attribute`, (1, *latent_shape).
            strength: multiple of the direction; 0 reconstructs, negative values remove the attribute.
            progress: called with the fraction done.

        Returns:
            Signals, (n, *shape).

        Raises:
            ConfigError: the prior has no codec.
            InputError: a shape does not fit.
        """
        return self.decode_latents(self.latents(x) + strength * direction, progress=progress)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Encode and decode signals with the codec.

        Args:
            x: signals, (n, *shape).

        Returns:
            Signals, (n, *shape).

        Raises:
            ConfigError: the prior has no codec.
            InputError: a shape does not fit.
        """
        return self.decode_latents(self.latents(x))

    def reconstruction_r2(self, x: Tensor) -> tuple[float, str]:
        """Return the coefficient of determination of the codec's reconstructions, as of `r2`.

        Args:
            x: signals, (n, *shape).

        Raises:
            ConfigError: the prior has no codec.
            InputError: a shape does not fit.
        """
        return self.r2(self.reconstruct(x), x)

    def r2(self, reconstructions: Tensor, x: Tensor) -> tuple[float, str]:
        """Return the coefficient of determination of reconstructions.

        Spectra are compared for spectral codecs, whose phases differ from those of the signal.

        Args:
            reconstructions: what signals were decoded to, (n, *shape).
            x: the signals, (n, *shape).

        Returns:
            R^2, 1 for perfect reconstructions, and what was compared: ``"signals"`` or ``"compressed spectra"``.

        Raises:
            InputError: a shape does not fit.
        """
        decoded, x = self._as_signals(reconstructions, "reconstructions"), self._as_signals(x)
        codec = self.model.codec if isinstance(self.model, LatentPrior) else None
        if not isinstance(codec, SpectralCodec):
            return float(r2(decoded, x)), "signals"
        return float(r2(*(self._map(codec.to_spectrum, each) for each in (decoded, x)))), "compressed spectra"

    def _latent_prior(self) -> LatentPrior:
        if not isinstance(self.model, LatentPrior):
            raise ConfigError(f"prior {self.card.name} ({self.card.architecture}) has no codec; use another.")
        return self.model
