"""Draw before_after.png for the README: photo and spectrogram, noisy on the left, denoised on the right."""

from pathlib import Path

import numpy as np
from PIL import Image

from denoise import denoise_audio, denoise_image
from denoise.dsp import stft
from denoise.files.audio import read_audio

HERE = Path(__file__).parent


def spectrogram(samples: np.ndarray, width: int, height: int) -> Image.Image:
    """Grey picture of the level from -90 to -20 dB below 12 kHz, time to the right."""
    import torch

    spectrum = stft(torch.from_numpy(samples[: len(samples) // 512 * 512]), 2048, 512).abs()[:512] / 512
    level = (20 * torch.log10(spectrum + 1e-9) + 90) / 70
    pixels = (level.flip(0).clamp(0, 1) * 255).byte().numpy()
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)


def main() -> None:
    noisy = np.asarray(Image.open(HERE / "photo.png"))
    clean = denoise_image(noisy)
    audio = read_audio(HERE / "speech.wav")
    denoised = denoise_audio(audio.samples, audio.format.sample_rate)
    box = (260, 60, 580, 300)  # the poster and the chrome ball
    sheet = Image.new("RGB", (2 * 320 + 8, 240 + 8 + 160), "white")
    for column, (pixels, samples) in enumerate(((noisy, audio.samples[0]), (clean, denoised[0]))):
        sheet.paste(Image.fromarray(pixels).crop(box), (column * 328, 0))
        sheet.paste(spectrogram(samples, 320, 160), (column * 328, 248))
    sheet.save(HERE / "before_after.png", optimize=True)


if __name__ == "__main__":
    main()
