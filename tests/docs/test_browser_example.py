"""The browser example denoises as torch does: its loop in Node, and the page in a headless browser."""

from __future__ import annotations

import contextlib
import functools
import http.server
import io
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from denoise.backends.onnx.export import to_onnx
from denoise.pipelines.audio import AudioPipeline
from denoise.registry import load

SOURCE = Path(__file__).parents[2] / "docs/examples/browser"
RATE = 44_100
MAX_DIFFERENCE = 1e-3  # the limit of the exporter
LOOP = """
import { readFileSync, writeFileSync } from "node:fs";
import * as ort from "onnxruntime-web/wasm";
import { StreamDenoiser } from "./denoise.js";

ort.env.wasm.numThreads = 1;
const denoiser = await StreamDenoiser.load(ort, new Uint8Array(readFileSync("speech.onnx")));
const samples = new Float32Array(readFileSync("in.f32").buffer.slice(0));
const n = samples.length / 2;
const denoised = await denoiser.denoise(44100, [samples.subarray(0, n), samples.subarray(n)]);
writeFileSync("out.f32", Buffer.concat(denoised.map((x) => Buffer.from(x.buffer, x.byteOffset, x.byteLength))));
"""
RECORD_OUTPUT = """
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (target, ...rest) {
  if (target instanceof AudioDestinationNode) {
    window.analyser = new AnalyserNode(this.context, { fftSize: 2048 });
    connect.call(this, window.analyser);
  }
  return connect.call(this, target, ...rest);
};
"""
DOWNLOAD = """async () => {
  const response = await fetch(document.getElementById("download").href);
  return [...new Uint8Array(await response.arrayBuffer())];
}"""
PEAK = """() => {
  if (!window.analyser) return 0;
  const samples = new Float32Array(2048);
  window.analyser.getFloatTimeDomainData(samples);
  return Math.max(...samples);
}"""


def recording() -> NDArray[np.float32]:
    """Tones that come and go, with noise in both channels, (2, time)."""
    time = np.arange(RATE) / RATE
    tones = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 16)) * (3 * time % 1)
    return (0.1 * tones + 0.02 * np.random.default_rng(0).normal(size=(2, RATE))).astype(np.float32)


def denoised_by_torch(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([*AudioPipeline("speech", backend="torch").stream([x], RATE)], axis=1)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the example with onnxruntime-web, the exported network and a recording."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("browser")
    for name in ("denoise.js", "index.html", "package.json"):
        shutil.copy(SOURCE / name, folder)
    line = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=0"]
    try:
        subprocess.run(line, cwd=folder, capture_output=True, text=True, check=True, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip("npm does not install onnxruntime-web within two minutes")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"npm cannot install onnxruntime-web: {error.stderr.strip().splitlines()[-1:]}")
    (folder / "speech.onnx").write_bytes(to_onnx(*load("speech")))
    soundfile.write(folder / "in.wav", recording().T, RATE)
    return folder


@pytest.fixture
def url(example: Path) -> Iterator[str]:
    """Address of the example, served on this machine."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=example)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def page(example: Path) -> Iterator[Any]:
    """A page of a headless Chromium whose microphone plays the recording."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium is installed")
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(playwright.sync_playwright())
        microphone = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
        args = ["--no-sandbox", *microphone, f"--use-file-for-fake-audio-capture={example / 'in.wav'}"]
        chromium = session.chromium.launch(executable_path=browser, args=args)
        stack.callback(chromium.close)
        yield chromium.new_page()


def test_the_loop_of_the_example_is_the_network(example: Path) -> None:
    x = recording()
    (example / "in.f32").write_bytes(x.tobytes())
    (example / "loop.mjs").write_text(LOOP)
    done = subprocess.run(["node", "loop.mjs"], cwd=example, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    denoised = np.fromfile(example / "out.f32", np.float32).reshape(x.shape)
    expected = denoised_by_torch(x)
    assert np.abs(expected).max() > 0.05
    assert np.abs(denoised - expected).max() <= MAX_DIFFERENCE


def test_the_page_denoises_a_file_and_the_microphone(page: Any, url: str, example: Path) -> None:
    page.add_init_script(RECORD_OUTPUT)
    page.goto(url)
    page.wait_for_function("document.getElementById('status').textContent === 'Ready'", timeout=120_000)
    page.set_input_files("#file", str(example / "in.wav"))
    page.wait_for_selector("#download:visible", timeout=120_000)
    assert page.get_attribute("#download", "download") == "in.denoised.wav"
    read = (
        "async () => [...new Uint8Array(await (await fetch(document.getElementById('download').href)).arrayBuffer())]"
    )
    denoised, rate = soundfile.read(io.BytesIO(bytes(page.evaluate(read))), dtype="float32")
    noisy, _ = soundfile.read(example / "in.wav", dtype="float32")
    assert rate == RATE
    assert np.abs(denoised.T - denoised_by_torch(noisy.T)).max() <= MAX_DIFFERENCE
    page.click("#microphone")
    page.wait_for_function(f"({PEAK})() > 0.01", timeout=60_000)
    assert "Error" not in page.inner_text("#status")
