"""The endpoints of a server that runs, as programs use them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import numpy as np
import pytest
import soundfile
from PIL import Image
from starlette.responses import PlainTextResponse
from starlette.types import Message

import denoise
from denoise.errors import ConfigError, InputError
from denoise.pipelines.prior import PriorPipeline
from denoise.pipelines.prior_files import half_mask
from denoise.web.app import Download, clean_name
from denoise.web.audio import AudioRequest
from denoise.web.guard import HEADERS, Guard
from denoise.web.serve import LOOPBACK, serve
from tests.web.conftest import MAX_UPLOAD_MIB, Server, assert_same_image, start_server

STATIC = Path(denoise.__file__).parent / "web" / "static"


@pytest.fixture
def noisy_png(tmp_path: Path) -> Path:
    """A ramp in noise of sigma 20, with a text and a resolution."""
    x = np.linspace(40, 200, 96) + np.random.default_rng(0).normal(0, 20, (64, 96))
    path = tmp_path / "ramp.png"
    picture = Image.fromarray(x.clip(0, 255).astype(np.uint8))
    picture.save(path, dpi=(300, 300))
    return path


def send(client: httpx.Client, path: str, file: Path | bytes | None = None, **query: Any) -> httpx.Response:
    content = file.read_bytes() if isinstance(file, Path) else file
    return client.post(path, params=query, content=content)


def finish(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    while job["state"] in ("queued", "running"):
        time.sleep(0.05)
        job = client.get(f"/api/jobs/{job['id']}").json()
    return job


@pytest.mark.usefixtures("one_thread")
class TestFiles:
    def test_audio_is_what_the_pipeline_writes(
        self, client: httpx.Client, server: Server, noisy_wav: Path, tmp_path: Path
    ) -> None:
        response = send(client, "/api/audio/tone.wav", noisy_wav, wait=1, model="general", strength=0.5)
        denoise.AudioPipeline("general").file(noisy_wav, tmp_path / "out.wav", strength=0.5)
        assert response.status_code == 200
        assert response.content == (tmp_path / "out.wav").read_bytes()
        assert 'filename="tone.denoised.wav"' in response.headers["content-disposition"]
        server.wait_until_empty()

    def test_noise_is_measured_in_a_range(self, client: httpx.Client, noisy_wav: Path, tmp_path: Path) -> None:
        response = send(client, "/api/audio/tone.wav", noisy_wav, wait=1, noise_start=0.1, noise_end=0.6)
        denoise.AudioPipeline("general").file(noisy_wav, tmp_path / "out.wav", noise_profile=(0.1, 0.6))
        assert response.content == (tmp_path / "out.wav").read_bytes()

    def test_image_is_what_the_pipeline_writes(self, client: httpx.Client, noisy_png: Path, tmp_path: Path) -> None:
        options: dict[str, Any] = {"luminance": 0.5, "detail": 0.25}
        response = send(client, "/api/image/ramp.png", noisy_png, wait=1, sigma=20, **options)
        denoise.ImagePipeline().file(noisy_png, tmp_path / "out.png", sigma=20 / 255, **options)
        assert_same_image(response.content, tmp_path / "out.png")
        assert Image.open(BytesIO(response.content)).info["dpi"] == pytest.approx((300, 300), abs=0.01)

    def test_a_job_reports_its_result_and_is_gone_after_its_files(
        self, client: httpx.Client, server: Server, noisy_wav: Path
    ) -> None:
        response = send(client, "/api/audio/tone.wav", noisy_wav, preview=1)
        assert response.status_code == 202
        assert response.headers["location"] == f"/api/jobs/{response.json()['id']}"
        job = finish(client, response.json())
        assert (job["state"], job["fraction"], job["error"]) == ("done", 1.0, None)
        assert (job["facts"]["input"], job["facts"]["output"]) == ("tone.wav", "tone.denoised.wav")
        assert [*job["files"]] == ["output", "before", "after"]
        files = {word: client.get(row["url"]).content for word, row in job["files"].items()}
        assert soundfile.read(BytesIO(files["before"]))[0] == pytest.approx(soundfile.read(noisy_wav)[0])
        assert files["after"] != files["before"]
        server.wait_until_empty()
        assert client.get(job["files"]["output"]["url"]).status_code == 404

    @pytest.mark.parametrize(
        ("method", "headers", "is_left", "is_delivered"),
        [
            ("GET", {}, False, True),
            ("HEAD", {}, False, False),
            ("GET", {"range": "bytes=0-9"}, False, False),
            ("GET", {"range": "bytes=-1"}, False, False),
            ("GET", {"range": "bytes=200000-"}, False, False),
            ("GET", {}, True, False),
        ],
    )
    def test_a_file_is_delivered_by_its_last_byte(
        self, tmp_path: Path, method: str, headers: dict[str, str], is_left: bool, is_delivered: bool
    ) -> None:
        (tmp_path / "a.bin").write_bytes(bytes(200_000))
        bodies, delivered = list[bytes](), list[str]()

        async def receive() -> Message:
            if not is_left or not bodies:
                await asyncio.sleep(3600)
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            bodies.append(message.get("body", b""))

        fields = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": method, "headers": fields}
        asyncio.run(Download(tmp_path / "a.bin", lambda: delivered.append("a"))(scope, receive, send))
        assert delivered == ["a"] * is_delivered
        assert is_left or (len(b"".join(bodies)) == 200_000) == is_delivered

    def test_a_job_keeps_its_files_until_they_are_received(
        self, client: httpx.Client, server: Server, noisy_png: Path
    ) -> None:
        job = finish(client, send(client, "/api/image/ramp.png", noisy_png).json())
        url = job["files"]["output"]["url"]
        assert client.head(url).status_code == 200
        assert client.get(url, headers={"range": "bytes=-1"}).status_code == 206
        assert len(client.get(url).content) == job["files"]["output"]["bytes"]
        server.wait_until_empty()
        assert client.get(url).status_code == 404

    def test_a_deep_tiff_gets_pictures_that_browsers_show(self, client: httpx.Client, tmp_path: Path) -> None:
        x = np.linspace(10_000, 50_000, 80 * 40).reshape(40, 80).astype(np.uint16)
        Image.fromarray(x).save(tmp_path / "deep.tif")
        job = finish(client, send(client, "/api/image/deep.tif", tmp_path / "deep.tif", preview=1).json())
        before = Image.open(BytesIO(client.get(job["files"]["before"]["url"]).content))
        assert (before.format, before.mode, before.size) == ("PNG", "RGB", (80, 40))
        assert np.asarray(before)[..., 0] == pytest.approx(x / 257, abs=0.51)
        client.delete(f"/api/jobs/{job['id']}")

    def test_a_preview_is_cut(self, monkeypatch: pytest.MonkeyPatch, noisy_wav: Path, tmp_path: Path) -> None:
        from denoise.web import audio

        monkeypatch.setattr(audio, "PREVIEW_S", 0.25)
        audio.write_preview(noisy_wav, tmp_path / "preview.wav")
        assert soundfile.info(tmp_path / "preview.wav").frames == 4000


@pytest.mark.usefixtures("one_thread")
class TestPriors:
    def test_samples_are_those_of_the_pipeline(self, client: httpx.Client, tmp_path: Path) -> None:
        query = {"prior": "mnist-matching", "n": 4, "label": "7", "seed": 3, "steps": 4}
        response = send(client, "/api/sample", wait=1, **query)
        pipeline = PriorPipeline("mnist-matching")
        pipeline.write(tmp_path / "x.png", pipeline.sample(4, label=7, seed=3, steps=4))
        assert response.content == (tmp_path / "x.png").read_bytes()

    def test_samples_of_audio_are_heard_and_seen(self, client: httpx.Client) -> None:
        job = finish(client, send(client, "/api/sample", prior="digits-audio", n=1, steps=2).json())
        assert [*job["files"]] == ["samples.png", "samples.wav"]
        sound, rate = soundfile.read(BytesIO(client.get(job["files"]["samples.wav"]["url"]).content))
        assert (len(sound), rate) == (6144, 8000)
        client.delete(f"/api/jobs/{job['id']}")

    def test_a_path_is_a_strip_from_one_seed_to_the_other(self, client: httpx.Client) -> None:
        strip = send(client, "/api/interpolate", prior="mnist-vae", n=5, seed=3, seed_end=8, wait=1)
        sheet = np.asarray(Image.open(BytesIO(strip.content)))
        assert sheet.shape == (28, 5 * 30 - 2)
        pipeline = PriorPipeline("mnist-vae")
        for seed, columns in ((3, slice(0, 28)), (8, slice(120, 148))):
            end = pipeline.decode(pipeline.noise(seed))[0, 0].numpy()
            assert sheet[:, columns] == pytest.approx(255 * end.clip(0, 1), abs=0.51)

    def test_completions_keep_what_is_seen_and_state_their_uncertainty(self, client: httpx.Client) -> None:
        pipeline = PriorPipeline("mnist-vae")
        digit = (255 * pipeline.sample(1, seed=5)[0, 0].numpy().clip(0, 1)).round().astype(np.uint8)
        alpha = np.full((28, 28), 255, np.uint8)
        alpha[14:] = 0
        file = BytesIO()
        Image.merge("LA", [Image.fromarray(digit), Image.fromarray(alpha)]).save(file, "PNG")
        query = {"prior": "mnist-vae", "n": 4, "seed": 2}
        job = finish(client, send(client, "/api/complete/holes.png", file.getvalue(), **query).json())
        assert [*job["files"]] == ["samples.png", "mean.png", "std.png"]
        files = {
            word: np.asarray(Image.open(BytesIO(client.get(row["url"]).content))) / 255
            for word, row in job["files"].items()
        }
        observed = np.where(alpha, digit, 0).astype(np.float32)[None, None] / 255
        import torch

        expected = pipeline.complete(torch.from_numpy(observed), half_mask(pipeline.card), 4, seed=2).numpy()[:, 0]
        std = expected.std(axis=0, ddof=1)
        assert files["mean.png"] == pytest.approx(expected.mean(axis=0).clip(0, 1), abs=0.01)
        assert files["std.png"] == pytest.approx(std / std.max(), abs=0.01)
        assert job["facts"]["std_of_white"] == pytest.approx(std.max(), abs=1e-3)

    @pytest.mark.parametrize(
        ("path", "query", "message"),
        [
            ("sample", {"prior": "nobody"}, "model 'nobody' is unknown; expected one of digits-audio"),
            ("sample", {"prior": "mnist-vae", "n": 65}, "n is 65; expected 1 to 64."),
            ("sample", {"prior": "mnist-vae", "n": 2, "seed": -1}, "seed is -1; expected 0 to"),
            ("sample", {}, "query: prior: Field required"),
            ("interpolate", {"prior": "mnist-vae", "n": 1}, "n is 1; expected 2 to 64."),
            (
                "complete/a.png",
                {"prior": "speech-prior"},
                "prior speech-prior is not of images; expected",
            ),
        ],
    )
    def test_wrong_requests_are_refused(
        self, client: httpx.Client, path: str, query: dict[str, Any], message: str
    ) -> None:
        response = send(client, f"/api/{path}", b"", **query)
        assert response.status_code == 400
        assert response.json()["error"].startswith(message)

    def test_an_image_without_holes_is_refused(self, client: httpx.Client, noisy_png: Path) -> None:
        response = send(client, "/api/complete/a.png", noisy_png, prior="mnist-vae", wait=1)
        assert response.json()["error"].startswith("a.png: no pixel is transparent")


class TestErrors:
    def test_a_wrong_file_gets_the_line_of_the_command(self, client: httpx.Client, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("no sound\n" * 10)
        response = send(client, "/api/audio/notes.txt", tmp_path / "notes.txt", wait=1)
        with pytest.raises(InputError) as error:
            denoise.AudioPipeline().file(tmp_path / "notes.txt", tmp_path / "notes.denoised.txt")
        assert response.status_code == 400
        assert response.json()["error"] == str(error.value).replace(f"{tmp_path}/", "")

    @pytest.mark.parametrize(
        ("query", "message"),
        [
            ({"strength": 2}, "strength is 2; expected 0 (input unchanged) to 1"),
            ({"strength": "much"}, "query: strength: Input should be a valid number"),
            ({"colour": 1}, "query: colour: no such setting"),
            ({"noise_start": 1}, "noise_start and noise_end belong together"),
            ({"model": "../../../etc/passwd"}, "model '../../../etc/passwd' is unknown; expected one of auto, general"),
            ({"model": "mnist-vae"}, "model 'mnist-vae' is unknown"),
        ],
    )
    def test_wrong_options_are_refused_before_the_upload(
        self, client: httpx.Client, server: Server, query: dict[str, Any], message: str
    ) -> None:
        response = send(client, "/api/audio/a.wav", b"RIFF", **query)
        assert response.status_code == 400
        assert response.json()["error"].startswith(message)
        assert not server.job_folders

    def test_forms_are_refused(self, client: httpx.Client, server: Server, noisy_wav: Path) -> None:
        response = client.post("/api/audio/a.wav", files={"file": noisy_wav.read_bytes()})
        assert response.status_code == 400
        assert response.json()["error"].startswith("the body is a form; expected the file itself")
        assert not server.job_folders

    def test_unknown_addresses(self, client: httpx.Client) -> None:
        assert client.get("/api/jobs/unknown").json()["error"].startswith("there is no such job")
        assert client.get("/api/nothing").json()["error"].startswith("GET /api/nothing: Not Found")
        assert client.get("/api/sample").status_code == 405


class TestSafety:
    @pytest.mark.parametrize("is_chunked", [False, True])
    def test_large_uploads_are_refused(self, client: httpx.Client, server: Server, is_chunked: bool) -> None:
        def chunks() -> Iterator[bytes]:
            for _ in range(2 * MAX_UPLOAD_MIB):
                yield bytes(1 << 20)

        content = chunks() if is_chunked else bytes((MAX_UPLOAD_MIB << 20) + 1)
        try:
            response = client.post("/api/audio/a.wav", content=content)
        except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):  # closed before its answer is read
            assert is_chunked
        else:
            assert response.status_code == 413
            assert response.json()["error"] == "a.wav: is larger than 8 MiB, the limit of this server."
        server.wait_until_empty()

    def test_a_decompression_bomb_is_refused_by_its_header(self, client: httpx.Client, server: Server) -> None:
        file = BytesIO()
        Image.new("1", (16_000, 16_000)).save(file, "PNG")
        assert len(file.getvalue()) < 200_000
        response = send(client, "/api/image/bomb.png", file.getvalue(), wait=1)
        assert response.status_code == 400
        assert re.match(r"bomb\.png: .*\(256\.0 megapixels\); expected at most 200\.", response.json()["error"])

    @pytest.mark.parametrize("name", ["..%2F..%2Fescaped.wav", "%2Ftmp%2Fescaped.wav", "..\\escaped.wav", ".out"])
    def test_names_stay_in_the_folder_of_the_job(self, client: httpx.Client, noisy_wav: Path, name: str) -> None:
        response = client.post(f"/api/audio/{name}?wait=1", content=noisy_wav.read_bytes())
        if response.status_code == 200:
            assert "escaped.denoised.wav" in response.headers["content-disposition"]
        else:
            assert response.status_code in (400, 404)

    def test_a_long_name_is_cut(self, client: httpx.Client, noisy_wav: Path) -> None:
        response = client.post(f"/api/audio/{300 * '音'}.wav?wait=1", content=noisy_wav.read_bytes())
        assert response.status_code == 200
        assert unquote(response.headers["content-disposition"]).endswith(f"''{50 * '音'}.denoised.wav")

    @pytest.mark.parametrize("path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/static/"])
    def test_nothing_but_the_page_is_readable(self, server: Server, path: str) -> None:
        response = httpx.get(server.url + path)
        assert response.status_code == 404
        assert "import" not in response.text

    @pytest.mark.parametrize(
        ("headers", "message"),
        [
            ({"origin": "https://elsewhere.example"}, "the request comes from a page of https://elsewhere.example"),
            ({"origin": "null"}, "the request comes from a page of null"),
            ({"origin": "http://["}, "the request comes from a page of http://["),
            ({"host": "elsewhere.example"}, "the request is for host 'elsewhere.example'"),
            ({"host": "["}, "the request is for host ''"),
        ],
    )
    def test_other_pages_are_refused(self, client: httpx.Client, headers: dict[str, str], message: str) -> None:
        response = client.post("/api/sample?prior=mnist-vae", headers=headers)
        assert response.status_code == 403
        assert response.json()["error"].startswith(message)
        assert HEADERS.items() <= dict(response.headers).items()

    def test_its_own_page_is_let_in(self, client: httpx.Client, server: Server) -> None:
        for host in (server.url.removeprefix("http://"), server.url.replace("http://127.0.0.1", "localhost")):
            response = client.get("/api/models", headers={"host": host, "origin": f"http://{host}"})
            assert response.status_code == 200

    @pytest.mark.parametrize(
        ("hosts", "host", "status"),
        [
            (LOOPBACK, "localhost:8765", 200),
            (LOOPBACK, "192.0.2.1", 403),
            (None, "localhost:8765", 200),
            (None, "192.0.2.1:8765", 200),
            (None, "[2001:db8::1]:8765", 200),
            (None, f"{socket.gethostname().upper()}:8765", 200),
            (None, "elsewhere.example", 403),  # whose name may lead to this machine
            (None, "[", 403),
            (None, "", 403),
        ],
    )
    def test_only_names_of_this_machine_are_allowed(self, hosts: frozenset[str] | None, host: str, status: int) -> None:
        async def ask() -> int:
            transport = httpx.ASGITransport(Guard(PlainTextResponse("page"), hosts))
            async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
                return (await client.get("/", headers={"host": host})).status_code

        assert asyncio.run(ask()) == status

    def test_every_answer_has_the_headers(self, client: httpx.Client) -> None:
        for path in ("/", "/static/app.js", "/api/models", "/api/jobs/unknown"):
            response = client.get(path)
            assert HEADERS.items() <= dict(response.headers).items()

    def test_the_page_names_no_other_host(self) -> None:
        for file in STATIC.iterdir():
            addresses = re.findall(r"https?://[^\s\"'<>)]+", file.read_text())
            assert set(addresses) <= {"http://www.w3.org/2000/svg"}  # a namespace, which is not loaded


class TestQueue:
    def test_a_second_user_waits_and_is_served_when_the_first_cancels(
        self, client: httpx.Client, server: Server, long_wav: Path, noisy_wav: Path
    ) -> None:
        first = send(client, "/api/audio/long.wav", long_wav).json()
        while client.get(f"/api/jobs/{first['id']}").json()["fraction"] == 0:
            time.sleep(0.05)
        second = send(client, "/api/audio/tone.wav", noisy_wav).json()
        assert (second["state"], second["ahead"]) == ("queued", 1)
        with pytest.raises(httpx.ReadTimeout):  # a program that waits, and leaves
            client.post(
                "/api/audio/tone.wav?wait=1", content=noisy_wav.read_bytes(), timeout=httpx.Timeout(120, read=1)
            )
        assert client.delete(f"/api/jobs/{first['id']}").status_code == 204
        gone = client.get(f"/api/jobs/{first['id']}")
        assert gone.status_code == 404
        assert gone.json()["error"].startswith("there is no such job: it was cancelled")
        assert finish(client, second)["state"] == "done"
        client.delete(f"/api/jobs/{second['id']}")
        server.wait_until_empty()

    @pytest.mark.skipif(sys.platform != "linux", reason="/proc states the memory of a process on Linux only")
    def test_ten_sessions_leave_the_memory_as_it_was(
        self, client: httpx.Client, server: Server, noisy_wav: Path, noisy_png: Path
    ) -> None:
        def resident_mib() -> float:
            return int(Path(f"/proc/{server.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

        sizes = []
        for _ in range(11):
            for path, file in (("audio/tone.wav", noisy_wav), ("image/ramp.png", noisy_png)):
                assert send(client, f"/api/{path}", file, wait=1).status_code == 200
            assert send(client, "/api/sample", prior="mnist-vae", n=16, wait=1).status_code == 200
            sizes.append(resident_mib())
        assert sizes[-1] - sizes[0] < 50  # since the first session, which loads the models


class TestCommand:
    @pytest.mark.parametrize(
        ("host", "port", "limit", "message"),
        [
            ("127.0.0.1", 70_000, 1, "--port is 70000; expected 0 (a free one) to 65535."),
            ("127.0.0.1", 0, 0, "--max-upload is 0 MiB; expected more than 0"),
            ("192.0.2.1", 0, 1, "192.0.2.1:0 cannot be used"),  # an address of no machine, for documentation
        ],
    )
    def test_wrong_options_are_refused(self, host: str, port: int, limit: float, message: str) -> None:
        with pytest.raises(ConfigError) as error:
            serve(host, port, max_upload_mib=limit, announce=pytest.fail)
        assert str(error.value).startswith(message)

    def test_a_port_that_is_taken_is_named(self, server: Server) -> None:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port} cannot be used \(Address already in use\)"):
            serve("127.0.0.1", port, max_upload_mib=1, announce=pytest.fail)

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
    def test_a_terminal_that_is_closed_leaves_no_files(self, tmp_path: Path, noisy_wav: Path) -> None:
        handler = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup, children would ignore it, too
        try:
            with start_server(tmp_path, signal.SIGHUP) as server:
                httpx.post(f"{server.url}/api/audio/tone.wav", content=noisy_wav.read_bytes(), timeout=120)
                assert server.job_folders
        finally:
            signal.signal(signal.SIGHUP, handler)

    def test_a_missing_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("denoise.web.serve.find_spec", lambda _: None)
        with pytest.raises(ConfigError, match=r"starlette is missing.*\.\[web\]"):
            serve("127.0.0.1", 0, max_upload_mib=1, announce=pytest.fail)


class TestRequests:
    @pytest.mark.parametrize(
        ("name", "cleaned"),
        [
            ("a.wav", "a.wav"),
            ("Büro 1.flac", "Büro 1.flac"),
            ("/etc/passwd", "passwd"),
            ("..", "file"),
            (".out", "out"),
            ("a\n\0b.wav", "ab.wav"),
            ("x" * 300 + ".flac", "x" * 150 + ".flac"),
            ("ü" * 300 + ".flac", "ü" * 75 + ".flac"),
            ("x" + "音" * 300, "x" + "音" * 49),
            ("x." + "音" * 80, "x." + "音" * 49),
        ],
    )
    def test_names_are_cleaned(self, name: str, cleaned: str) -> None:
        assert clean_name(name) == cleaned
        assert clean_name(cleaned) == cleaned

    def test_defaults_are_those_of_the_command(self) -> None:
        options = AudioRequest().options()
        assert (options.strength, options.attenuation_limit, options.noise_profile) == (1.0, None, None)

    def test_models_are_listed_with_their_licences(self, client: httpx.Client) -> None:
        row = client.get("/api/models").json()
        assert [model["name"] for model in row["models"]] == denoise.bundled()
        assert all(model["licence"] and model["data"] for model in row["models"])
        assert row["max_upload"] == MAX_UPLOAD_MIB << 20
