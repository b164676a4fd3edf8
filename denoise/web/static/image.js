// The tab Image: files in, and before and after on top of each other with a divider.

import { fillModels, Worklist } from "./worklist.js";

const section = document.getElementById("image");
const viewer = document.getElementById("lightbox");
const viewport = document.getElementById("viewport");
const stage = document.getElementById("stage");
const [before, after] = ["image-before", "image-after"].map((id) => document.getElementById(id));
const divider = document.getElementById("divider");
const zoom = document.getElementById("zoom");

let urls = [];

/** Whether the browser itself shows a file; otherwise the server makes PNG files of it. */
async function canShow(file) {
  const url = URL.createObjectURL(file);
  try {
    await Object.assign(new Image(), { src: url }).decode();
    return true;
  } catch {
    return false;
  } finally {
    URL.revokeObjectURL(url);
  }
}

function layOut() {
  if (!before.naturalWidth || !viewport.clientWidth) return;
  const fit = viewport.clientWidth / before.naturalWidth;
  const scale = zoom.value === "fit" ? Math.min(fit, 1) : Number(zoom.value) / devicePixelRatio; // pixels of the screen
  stage.style.width = `${before.naturalWidth * scale}px`;
  stage.style.height = `${before.naturalHeight * scale}px`;
  stage.classList.toggle("pixels", scale * devicePixelRatio >= 1);
  divide();
}

/** Put the divider at its place in what is seen, also where a part of the image is seen. */
function divide() {
  const seen = Math.min(viewport.clientWidth, stage.clientWidth);
  const x = viewport.scrollLeft + (seen * divider.value) / 100;
  after.style.clipPath = `inset(0 0 0 ${x}px)`;
  document.getElementById("divider-line").style.left = `${x - 1}px`;
}

/** Drag the divider over the image; a finger moves the image instead. */
function drag(event) {
  if (event.pointerType === "touch" || !(event.buttons & 1)) return;
  const x = event.clientX - viewport.getBoundingClientRect().left - viewport.clientLeft;
  divider.value = (100 * x) / Math.min(viewport.clientWidth, stage.clientWidth);
  divide();
}

async function show(item, isShown) {
  viewer.hidden = item === null;
  for (const url of urls) URL.revokeObjectURL(url);
  urls = [];
  if (item === null) return;
  const { files } = item.result;
  urls = [files.before ?? item.file, files.after ?? files.output].map((blob) => URL.createObjectURL(blob));
  viewer.querySelector("h2").textContent = item.file.name;
  [before.src, after.src] = urls;
  await Promise.all([before.decode(), after.decode()]);
  if (isShown()) layOut();
}

function summarise(facts) {
  const level = (x) => (x === undefined || x === null ? "?" : x.toFixed(1));
  return `Done in ${facts.seconds.toFixed(1)} s, noise ${level(facts.noise_before_sigma_255)} to ` +
    `${level(facts.noise_after_sigma_255)} of 255`;
}

export function setUpImage(about) {
  fillModels(document.getElementById("image-model"), about.models, "denoiser", "image");
  const worklist = new Worklist(section, "/api/image", {
    maxUpload: about.max_upload,
    prepare: async (file) => ((await canShow(file)) ? {} : { preview: true }),
    summarise,
    show,
  });
  document.getElementById("image-again").addEventListener("click", () => worklist.run(worklist.shown));
  divider.addEventListener("input", divide);
  viewport.addEventListener("scroll", divide);
  viewport.addEventListener("pointerdown", drag);
  viewport.addEventListener("pointermove", drag);
  zoom.addEventListener("change", layOut);
  window.addEventListener("resize", layOut);
}
