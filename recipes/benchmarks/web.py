"""The web page in Chromium: seconds from drop to sound, memory after ten sessions, pictures of each tab.

    python recipes/benchmarks/web.py [--sessions N] [--pictures docs/assets]

Needs Chromium, and playwright from `.[dev]`. Linux only: /proc states the memory of the server.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

SAMPLES = Path(__file__).parents[2] / "samples"
CLIP_S = 10


@contextmanager
def serve() -> Iterator[tuple[str, int]]:
    """Start ``denoise web`` on a free port; yield its address and process id."""
    words = [sys.executable, "-m", "denoise", "web", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[0], process.pid
        finally:
            process.terminate()


def open_page(browser: Browser, url: str, **options: object) -> Page:
    page = browser.new_page(**options)  # type: ignore[arg-type]
    page.set_default_timeout(300_000)
    page.goto(url)
    page.wait_for_selector("body[data-ready]")
    return page


def drop_to_sound(page: Page, clip: Path) -> float:
    """Seconds from the choice of a file until the position of its playback moves."""
    started = time.perf_counter()
    page.set_input_files("#audio-files", clip)
    page.wait_for_selector("#player:not([hidden])")
    page.wait_for_function(f"() => document.getElementById('clock').value.includes('of {CLIP_S}.0')")
    page.click("#play")
    page.wait_for_function("() => document.getElementById('position').valueAsNumber > 0")
    return time.perf_counter() - started


def resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def cpu_seconds() -> float:
    """CPU time of the processes that this one has started, directly or not, and that run: server and browser."""
    rows = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            rows[int(stat.parent.name)] = int(fields[1]), int(fields[11]) + int(fields[12])
    family, ticks = {os.getpid()}, 0
    while children := {pid for pid, (parent, _) in rows.items() if parent in family} - family:
        family |= children
        ticks += sum(rows[pid][1] for pid in children)
    return ticks / os.sysconf("SC_CLK_TCK")


def save_picture(page: Page, path: Path) -> None:
    """Save what is seen as WebP."""
    page.wait_for_timeout(300)
    Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB").save(path, quality=70, method=6)
    print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


def take_pictures(browser: Browser, url: str, folder: Path) -> None:
    """Use each tab, and save what is seen."""
    page = open_page(browser, url, viewport={"width": 1000, "height": 600})
    page.set_input_files("#audio-files", SAMPLES / "speech.wav")
    page.wait_for_selector("#audio .worklist a")
    save_picture(page, folder / "web-audio.webp")
    page.click("#tab-image")
    page.set_input_files("#image-files", SAMPLES / "photo.png")
    page.wait_for_selector("#image .worklist a")
    save_picture(page, folder / "web-image.webp")
    page.click("#tab-priors")
    page.select_option("#prior", "flowers")
    page.select_option("#label", "sunflowers")
    for card in ("sampling", "interpolation"):
        page.click(f"#{card} [type=submit]")
        page.wait_for_selector(f"#{card} .results :is(img, canvas)")
    page.locator("#path-position").fill("8")
    page.click("#completion-sample")
    page.wait_for_selector("#canvas[data-filled]")
    page.click("#erase-half")
    page.click("#completion [type=submit]")
    page.wait_for_selector("#completion .results img >> nth=2")
    save_picture(page, folder / "web-priors.webp")
    page.click("#tab-about")
    page.click("summary:has-text('mnist-matching')")
    page.evaluate("document.querySelectorAll('details:not([open])').forEach((each, i) => { each.hidden = i > 4; })")
    save_picture(page, folder / "web-about.webp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, help="folder of the pictures")
    parser.add_argument("--sessions", type=int, default=10, help="sessions to measure after the first one")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as temporary, serve() as (url, pid), sync_playwright() as playwright:
        speech, rate = soundfile.read(SAMPLES / "speech.wav")
        clip = Path(temporary) / "clip.wav"
        soundfile.write(clip, np.resize(speech, CLIP_S * rate), rate)
        browser = playwright.chromium.launch(executable_path=chromium)
        seconds, cpu, sizes = [], [], []
        for _ in range(arguments.sessions + 1):
            page = open_page(browser, url)
            cpu_before = cpu_seconds()
            seconds.append(drop_to_sound(page, clip))
            cpu.append(cpu_seconds() - cpu_before)
            page.close()
            sizes.append(resident_mib(pid))
        print(f"first session, {CLIP_S} s of 48 kHz mono: {seconds[0]:.2f} s, {sizes[0]:.0f} MiB")
        if arguments.sessions:
            growth = sizes[-1] - sizes[0]
            print(f"{arguments.sessions} more: median {np.median(seconds[1:]):.2f} s from drop to sound, ", end="")
            print(f"{np.median(cpu[1:]):.2f} s of CPU time of all processes; memory of the server {growth:+.0f} MiB")
        if arguments.pictures:
            take_pictures(browser, url, arguments.pictures)
        browser.close()


if __name__ == "__main__":
    main()
