// The tab Audio: files and recordings in, and a player of what came and what was removed.

import { Player } from "./player.js";
import { Recorder } from "./recorder.js";
import { drawSpectra, drawWave, loudest, spectra } from "./spectrum.js";
import { fillModels, Worklist } from "./worklist.js";

const VERSIONS = ["before", "after", "removed"];
const PREVIEW_S = 300; // what the server makes for the player

const section = document.getElementById("audio");
const viewer = document.getElementById("player");
const tracks = document.getElementById("tracks");
const play = document.getElementById("play");
const slider = document.getElementById("position");
const clock = document.getElementById("clock");
const noise = document.getElementById("noise");
const [noiseStart, noiseEnd] = ["noise-start", "noise-end"].map((id) => document.getElementById(id));
const canvas = (kind, version) => tracks.querySelector(`canvas.${kind}[data-version=${version}]`);

const player = new Player(showPosition);
let shown = null;

function showPosition(position) {
  play.textContent = player.isPlaying ? "Pause" : "Play";
  slider.value = position;
  clock.value = `${position.toFixed(1)} of ${player.duration.toFixed(1)} s`;
  document.getElementById("playhead").style.left = `${(100 * position) / (player.duration || 1)}%`;
}

function showNoise() {
  const range = document.getElementById("noise-range");
  const [start, end] = [noiseStart.valueAsNumber, noiseEnd.valueAsNumber];
  range.hidden = !(end > start) || !player.duration;
  range.style.left = `${(100 * start) / player.duration}%`;
  range.style.width = `${(100 * (Math.min(end, player.duration) - start)) / player.duration}%`;
}

function draw() {
  const columns = Math.min(1200, Math.max(200, Math.round(tracks.clientWidth)));
  let peak = null;
  for (const version of VERSIONS) {
    const samples = player.mono(version);
    drawWave(canvas("wave", version), samples, columns);
    const columnsOf = spectra(samples, columns);
    peak ??= loudest(columnsOf); // that of the input, so that the pictures compare
    drawSpectra(canvas("spectrum", version), columnsOf, peak);
  }
}

async function show(item, isShown) {
  player.pause();
  viewer.hidden = item === null;
  if (item !== shown) noiseStart.value = noiseEnd.value = ""; // they are moments of another recording
  shown = item;
  if (item === null) return;
  const { files } = item.result;
  await player.load(files.before, files.after, isShown);
  if (!isShown()) return;
  viewer.querySelector("h2").textContent = item.file.name;
  slider.max = player.duration;
  noiseEnd.max = noiseStart.max = player.duration.toFixed(2);
  const note = document.getElementById("audio-note");
  note.textContent = player.duration > PREVIEW_S - 1 ? "The first five minutes are shown; the download holds all of it." : "";
  draw();
  showPosition(0);
  showNoise();
}

function summarise(facts) {
  const level = (x) => (x === undefined || x === null ? "?" : x.toFixed(0));
  const reason = facts.model_reason && facts.model_reason !== "given" ? ` (${facts.model_reason})` : "";
  return `Done in ${facts.seconds.toFixed(1)} s by ${facts.model}${reason}, ` +
    `noise floor ${level(facts.noise_before_dbfs)} to ${level(facts.noise_after_dbfs)} dBFS`;
}

function setUpRecorder(worklist) {
  const button = document.getElementById("record");
  let recorder = null;
  button.addEventListener("click", async () => {
    button.disabled = true; // a second click would start a second recorder
    try {
      if (recorder) {
        const file = await recorder.stop();
        recorder = null;
        worklist.add([file]);
      } else {
        const starting = new Recorder();
        await starting.start();
        recorder = starting;
      }
      button.textContent = recorder ? "Stop recording" : "Record from the microphone";
    } catch (error) {
      button.textContent = `No microphone (${error.message}). Try again`;
    } finally {
      button.disabled = false;
      if (document.activeElement === document.body) button.focus(); // which it loses while it is disabled
    }
  });
}

/** Drag over the pictures to select noise; a click moves to that moment. */
function setUpPointer() {
  let start = null;
  const time = (event) => {
    const box = tracks.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * player.duration;
  };
  tracks.addEventListener("pointerdown", (event) => {
    start = time(event);
    tracks.setPointerCapture(event.pointerId);
  });
  tracks.addEventListener("pointermove", (event) => {
    if (start === null) return;
    const ends = [start, time(event)].sort((a, b) => a - b);
    if (ends[1] - ends[0] < player.duration / 200) return;
    [noiseStart.value, noiseEnd.value] = ends.map((end) => end.toFixed(2));
    showNoise();
  });
  tracks.addEventListener("pointerup", (event) => {
    if (start !== null && Math.abs(time(event) - start) < player.duration / 200) player.seek(start);
    start = null;
  });
}

export function setUpAudio(about) {
  fillModels(document.getElementById("audio-model"), about.models, "denoiser", "audio");
  const worklist = new Worklist(section, "/api/audio", {
    maxUpload: about.max_upload,
    prepare: () => ({ preview: true }),
    summarise,
    show,
  });
  setUpRecorder(worklist);
  setUpPointer();
  play.addEventListener("click", () => (player.isPlaying ? player.pause() : player.play()));
  slider.addEventListener("input", () => player.seek(slider.valueAsNumber));
  for (const radio of viewer.querySelectorAll("input[name=version]")) {
    radio.addEventListener("change", () => player.switchTo(radio.value));
  }
  for (const input of [noiseStart, noiseEnd]) input.addEventListener("input", showNoise);
  noise.addEventListener("submit", (event) => {
    event.preventDefault();
    worklist.run(worklist.shown, Object.fromEntries(new FormData(noise)));
  });
}
