"""The page in Chromium, as people use it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

import denoise
from denoise.web.jobs import MAX_JOBS
from tests.web.conftest import Server, assert_same_image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SAMPLES = Path(__file__).parents[2] / "samples"
TABS = ("audio", "image", "priors", "about")
PIXELS = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.join()"
PATIENCE_MS = 60_000  # busy machines are slow

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, with a microphone that beeps."""
    words = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=words)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, server: Server) -> Iterator[Callable[..., Page]]:
    """``open_page(tab)``: the page in a session of its own, which loads from the server alone and reports no error."""
    hosts, messages, contexts = set[str](), list[str](), []

    def open_tab(tab: str, **options: Any) -> Page:
        contexts.append(browser.new_context(**({"viewport": {"width": 1200, "height": 900}} | options)))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda request: hosts.add("/".join(request.url.split("/")[:3])))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("console", lambda message: messages.append(message.text) if message.type == "error" else None)
        page.goto(f"{server.url}/#{tab}")
        page.wait_for_selector("body[data-ready]")
        return page

    expect.set_options(timeout=PATIENCE_MS)
    yield open_tab
    for context in contexts:
        context.close()
    assert {host for host in hosts if not host.startswith("blob:")} <= {server.url}
    assert [message for message in messages if "status of 4" not in message] == []  # a refusal is shown in the page


def download(page: Page, link: str) -> tuple[str, bytes]:
    with page.expect_download() as waiting:
        page.click(link)
    return waiting.value.suggested_filename, waiting.value.path().read_bytes()


@pytest.mark.usefixtures("one_thread")
class TestAudio:
    def test_a_dropped_file_is_heard_seen_and_downloaded(
        self, open_page: Callable[..., Page], noisy_wav: Path, tmp_path: Path
    ) -> None:
        page = open_page("audio")
        page.set_input_files("#audio-files", noisy_wav)
        expect(page.locator("#player h2")).to_have_text("tone.wav")
        expect(page.locator("#audio .status")).to_contain_text("Done in")
        name, content = download(page, "#audio .worklist a")
        denoise.AudioPipeline().file(noisy_wav, tmp_path / "out.wav")
        assert (name, content) == ("tone.denoised.wav", (tmp_path / "out.wav").read_bytes())
        for version in ("before", "after", "removed"):
            for kind in ("wave", "spectrum"):
                canvas = page.locator(f"canvas.{kind}[data-version={version}]")
                assert len({*canvas.evaluate(PIXELS).split(",")}) > 2  # not of one colour

    def test_versions_switch_at_the_same_moment(self, open_page: Callable[..., Page], tmp_path: Path) -> None:
        soundfile.write(tmp_path / "noise.wav", 0.1 * np.random.default_rng(0).normal(size=240_000), 8_000)
        page = open_page("audio")
        page.set_input_files("#audio-files", tmp_path / "noise.wav")
        expect(page.locator("#player h2")).to_have_text("noise.wav")
        page.click("#play")
        expect(page.locator("#play")).to_have_text("Pause")
        page.wait_for_function("() => document.getElementById('position').valueAsNumber > 0.1")
        page.check("input[value=before]")
        assert page.locator("#position").evaluate("slider => slider.valueAsNumber") > 0.1  # it did not start again
        page.locator("#position").fill("29.5")
        expect(page.locator("#play")).to_have_text("Play")  # at the end of the 30 seconds
        page.locator("#position").fill("0.5")
        expect(page.locator("#clock")).to_have_text("0.5 of 30.0 s")

    def test_what_is_removed_is_the_difference(self, open_page: Callable[..., Page], noisy_wav: Path) -> None:
        x, rate = soundfile.read(noisy_wav)
        quieter = BytesIO()
        soundfile.write(quieter, 0.25 * x, rate, format="WAV", subtype="FLOAT")
        removed = open_page("audio").evaluate(
            """async (files) => {
                const { Player } = await import("/static/player.js");
                const player = new Player(() => {});
                player.audioContext = new OfflineAudioContext(1, 16000, 16000);  // at the rate of the file
                await player.load(...files.map((bytes) => new Blob([new Uint8Array(bytes)])));
                return [...player.mono("removed")];
            }""",
            [[*noisy_wav.read_bytes()], [*quieter.getvalue()]],
        )
        assert np.array(removed) == pytest.approx(0.75 * x, abs=1e-4)

    def test_spectra_are_those_of_numpy(self, open_page: Callable[..., Page]) -> None:
        x = np.random.default_rng(0).normal(size=1024)
        script = """async (x) => [...(await import("/static/spectrum.js")).powerSpectrum(x)]"""
        power = open_page("audio").evaluate(script, x.tolist())
        assert power == pytest.approx((np.abs(np.fft.rfft(x)) ** 2)[:512])

    def test_noise_is_selected_by_dragging(self, open_page: Callable[..., Page], noisy_wav: Path) -> None:
        page = open_page("audio")
        page.set_input_files("#audio-files", noisy_wav)
        expect(page.locator("#audio .status")).to_contain_text("by ")
        box = page.locator("#tracks").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 60)
        page.mouse.up()
        assert float(page.input_value("#noise-start")) == pytest.approx(0.25, abs=0.02)
        assert float(page.input_value("#noise-end")) == pytest.approx(0.75, abs=0.02)
        page.click("#noise [type=submit]")
        expect(page.locator("#audio .status")).to_contain_text("by general (noise profile)")

    def test_the_microphone_is_recorded(self, open_page: Callable[..., Page]) -> None:
        page = open_page("audio")
        page.click("#record")
        expect(page.locator("#record")).to_have_text("Stop recording")
        page.wait_for_timeout(1500)
        page.click("#record")
        expect(page.locator("#player h2")).to_have_text("recording.wav")
        name, content = download(page, "#audio .worklist a")
        sound, _ = soundfile.read(BytesIO(content))
        assert name == "recording.denoised.wav"
        assert len(sound) > 8000

    def test_a_double_click_records_once(self, open_page: Callable[..., Page]) -> None:
        page = open_page("audio")
        n_microphones = page.evaluate(
            """() => {
                const devices = navigator.mediaDevices, open = devices.getUserMedia.bind(devices);
                let n = 0;
                devices.getUserMedia = (constraints) => (n++, open(constraints));
                for (let i = 0; i < 2; i++) document.getElementById("record").click();
                return n;
            }"""
        )
        assert n_microphones == 1
        expect(page.locator("#record")).to_have_text("Stop recording")
        expect(page.locator("#record")).to_be_enabled()

    def test_a_wrong_file_is_refused_in_one_line(self, open_page: Callable[..., Page]) -> None:
        page = open_page("audio")
        dropped = page.evaluate_handle(
            """() => {
                const transfer = new DataTransfer();
                transfer.items.add(new File(["no sound\\n".repeat(10)], "notes.wav"));
                return transfer;
            }"""
        )
        page.dispatch_event("#audio .drop", "drop", {"dataTransfer": dropped})
        expect(page.locator("#audio .status.error")).to_contain_text("notes.wav: cannot be read as audio")
        page.click("text=Remove")
        expect(page.locator("#audio .worklist li")).to_have_count(0)

    def test_two_sessions_wait_for_each_other_and_one_cancels(
        self, open_page: Callable[..., Page], server: Server, long_wav: Path, noisy_wav: Path
    ) -> None:
        first, second = open_page("audio"), open_page("audio")
        first.set_input_files("#audio-files", long_wav)
        expect(first.locator("#audio .status")).to_contain_text(re.compile(r"Working, \d+ %"))
        second.set_input_files("#audio-files", [noisy_wav, noisy_wav])
        expect(second.locator("#audio .status").last).to_have_text(re.compile("Waiting, [12] ahead"))
        first.click("text=Cancel")
        expect(first.locator("#audio .status")).to_have_text("Cancelled.")
        expect(second.locator("#audio .status").last).to_contain_text("Done in")
        expect(second.locator("#audio .worklist a")).to_have_count(2)

    def test_a_page_that_is_left_takes_its_jobs_along(
        self, open_page: Callable[..., Page], server: Server, long_wav: Path
    ) -> None:
        page = open_page("audio")
        page.set_input_files("#audio-files", long_wav)
        expect(page.locator("#audio .status")).to_contain_text("Working")
        page.goto("about:blank")
        server.wait_until_empty()


@pytest.mark.usefixtures("one_thread")
class TestImage:
    def test_before_and_after_are_divided(self, open_page: Callable[..., Page], tmp_path: Path) -> None:
        crop = tmp_path / "crop.png"
        Image.open(SAMPLES / "photo.png").crop((200, 200, 328, 296)).save(crop, dpi=(300, 300))
        page = open_page("image")
        page.set_input_files("#image-files", crop)
        expect(page.locator("#lightbox h2")).to_have_text("crop.png")
        assert page.locator("#stage").evaluate("s => [s.clientWidth, s.clientHeight]") == [128, 96]  # at 100 %
        page.locator("#divider").fill("25")
        assert page.locator("#image-after").evaluate("i => i.style.clipPath") == "inset(0px 0px 0px 32px)"
        page.locator("#viewport").hover(position={"x": 32, "y": 40})
        page.mouse.down()
        page.locator("#viewport").hover(position={"x": 96, "y": 40})
        page.mouse.up()
        assert page.input_value("#divider") == "75"  # 96 of 128 pixels
        page.select_option("#zoom", "2")
        assert page.locator("#stage").evaluate("s => s.clientWidth") == 256
        name, content = download(page, "#image .worklist a")
        denoise.ImagePipeline().file(crop, tmp_path / "out.png")
        assert name == "crop.denoised.png"
        assert_same_image(content, tmp_path / "out.png")

    @pytest.mark.parametrize("tab", ["audio", "image"])
    def test_fast_clicks_show_the_last_file(
        self, open_page: Callable[..., Page], tmp_path: Path, noisy_wav: Path, tab: str
    ) -> None:
        files = [tmp_path / f"{name}{'.wav' if tab == 'audio' else '.png'}" for name in ("a", "b")]
        for file in files:
            if tab == "audio":
                shutil.copy(noisy_wav, file)
            else:
                Image.open(SAMPLES / "photo.png").crop((0, 0, 96, 64)).save(file)
        page = open_page(tab)
        page.set_input_files(f"#{tab}-files", files)
        expect(page.locator(f"#{tab} .worklist a")).to_have_count(2)
        page.evaluate(
            """(tab) => {
                const buttons = [...document.querySelectorAll(`#${tab} .worklist button`)];
                const shows = buttons.filter((button) => button.textContent === "Show");
                for (const i of [0, 1, 0, 0, 1, 0, 1, 1]) shows[i].click();
            }""",
            tab,
        )
        expect(page.locator("#player h2" if tab == "audio" else "#lightbox h2")).to_have_text(files[1].name)
        page.wait_for_timeout(500)
        expect(page.locator(f"#{tab} .worklist a")).to_have_count(2)
        expect(page.locator(f"#{tab} .status.error")).to_have_count(0)

    def test_many_files_wait_for_each_other(self, open_page: Callable[..., Page], tmp_path: Path) -> None:
        files = [tmp_path / f"{i}.png" for i in range(MAX_JOBS + 4)]
        for file in files:
            Image.new("L", (8, 8)).save(file)
        page = open_page("image")
        page.set_input_files("#image-files", files)
        page.locator("#image .worklist li").last.get_by_text("Cancel").click()
        expect(page.locator("#image .status").last).to_have_text("Cancelled.")
        expect(page.locator("#image .worklist a")).to_have_count(MAX_JOBS + 3)
        page.locator("#image .worklist li").last.get_by_text("Try again").click()
        expect(page.locator("#image .worklist a")).to_have_count(MAX_JOBS + 4)

    def test_settings_are_sent_and_a_tiff_is_shown(self, open_page: Callable[..., Page], tmp_path: Path) -> None:
        x = np.random.default_rng(0).integers(10_000, 50_000, (40, 80)).astype(np.uint16)
        Image.fromarray(x).save(tmp_path / "deep.tif")
        page = open_page("image")
        page.locator("#image-strength").fill("0")
        page.set_input_files("#image-files", tmp_path / "deep.tif")
        expect(page.locator("#lightbox h2")).to_have_text("deep.tif")
        assert page.locator("#image-before").evaluate("i => [i.naturalWidth, i.naturalHeight]") == [80, 40]
        _, content = download(page, "#image .worklist a")
        assert np.array_equal(np.asarray(Image.open(BytesIO(content))), x)  # strength 0 keeps the input


class TestPriors:
    def test_samples_and_a_path(self, open_page: Callable[..., Page]) -> None:
        page = open_page("priors")
        page.select_option("#label", "7")
        page.fill("#sample-n", "4")
        page.click("#sampling [type=submit]")
        sheet = page.locator("#sampling .results img")
        assert sheet.evaluate("async i => { await i.decode(); return [i.naturalWidth, i.naturalHeight]; }") == [58, 58]
        page.select_option("#prior", "mnist-vae")
        page.click("#interpolation [type=submit]")
        expect(page.locator("#interpolation .results")).to_be_visible()
        first = page.locator("#frame").evaluate(PIXELS)
        page.locator("#path-position").fill("16")
        assert page.locator("#frame").evaluate("c => [c.width, c.height]") == [28, 28]
        assert page.locator("#frame").evaluate(PIXELS) != first

    def test_a_brush_erases_what_is_completed(self, open_page: Callable[..., Page]) -> None:
        page = open_page("priors")
        page.select_option("#prior", "mnist-vae")
        page.click("#completion [type=submit]")
        expect(page.locator("#completion .job")).to_contain_text("There is no image yet")
        page.click("#completion-sample")
        page.wait_for_selector("#canvas[data-filled]")
        page.locator("#canvas").scroll_into_view_if_needed()
        box = page.locator("#canvas").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + 3 * box["width"] / 4, box["y"] + box["height"] / 2, steps=20)
        page.mouse.up()
        alpha = page.locator("#canvas").evaluate(
            "c => [...c.getContext('2d').getImageData(0, 0, 28, 28).data].filter((_, i) => i % 4 === 3)"
        )
        is_erased = np.array(alpha).reshape(28, 28) == 0
        assert is_erased[14, 9:19].all()
        assert not is_erased[:10].any()
        page.click("#completion [type=submit]")
        expect(page.locator("#completion .results img")).to_have_count(3)
        expect(page.locator("#completion .results")).to_contain_text("white is a standard deviation of 0.")

    def test_sampling_is_cancelled(self, open_page: Callable[..., Page]) -> None:
        page = open_page("priors")
        page.select_option("#prior", "shapes")  # most of a minute
        page.click("#sampling [type=submit]")
        expect(page.locator("#sampling .status")).to_have_text("Working")
        page.click("text=Cancel")
        expect(page.locator("#sampling .status")).to_have_text("Cancelled.")
        page.select_option("#prior", "mnist-vae")
        page.click("#sampling [type=submit]")
        expect(page.locator("#sampling .results img")).to_have_count(1)


class TestPage:
    def test_about_lists_every_model(self, open_page: Callable[..., Page]) -> None:
        page = open_page("about")
        expect(page.locator("#models summary")).to_have_count(len(denoise.bundled()))
        page.click("summary:has-text('speech-best')")
        expect(page.locator("details[open]")).to_contain_text("Licence: MIT")

    def test_tabs_are_chosen_by_keys(self, open_page: Callable[..., Page]) -> None:
        page = open_page("audio")
        page.focus("#tab-audio")
        for key, tab in (("ArrowRight", "image"), ("End", "about"), ("ArrowRight", "audio"), ("ArrowLeft", "about")):
            page.keyboard.press(key)
            expect(page.locator(f"#tab-{tab}")).to_be_focused()
            assert [name for name in TABS if page.locator(f"#{name}").is_visible()] == [tab]

    def test_everything_is_reached_by_keys(self, open_page: Callable[..., Page]) -> None:
        page, reached = open_page("image"), list[str]()
        page.focus("#tab-image")
        for _ in range(7):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id"))
        fields = ["files", "model", "strength", "luminance", "colour", "detail", "sigma"]
        assert reached == [f"image-{name}" for name in fields]

    def test_labels_and_contrast(self, open_page: Callable[..., Page], noisy_wav: Path) -> None:
        page = open_page("audio")
        page.set_input_files("#audio-files", noisy_wav)
        expect(page.locator("#audio .status")).to_contain_text("Done in")
        axe = Axe()
        for tab in TABS:
            page.click(f"#tab-{tab}")
            page.emulate_media(color_scheme="light")
            results = axe.run(page)
            assert results.violations_count == 0, results.generate_report()
            page.emulate_media(color_scheme="dark")
            results = axe.run(page, options={"runOnly": ["color-contrast"]})
            assert results.violations_count == 0, results.generate_report()

    def test_a_narrow_screen_needs_no_sideways_scrolling(self, open_page: Callable[..., Page], noisy_wav: Path) -> None:
        page = open_page("audio", viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
        page.set_input_files("#audio-files", noisy_wav)
        expect(page.locator("#player h2")).to_be_visible()
        for tab in TABS:
            page.tap(f"#tab-{tab}")
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
