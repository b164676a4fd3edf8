// The tab Priors: samples, a path between two of them, and completions of an image with a brush.

import { runJob, stateText } from "./api.js";
import { element, fillModels } from "./worklist.js";

const GAP = 2; // pixels between the pictures of a sheet
const form = document.getElementById("prior-form");
const [prior, label, text] = ["prior", "label", "text"].map((id) => document.getElementById(id));
const canvas = document.getElementById("canvas");
const context = canvas.getContext("2d");

let models = [];
let original = null; // the image on the canvas, before anything was erased

const model = () => models.find((each) => each.name === prior.value);
const card = (id) => document.getElementById(id);

function options() {
  const values = Object.fromEntries(new FormData(form));
  if (values.text) delete values.label;
  return values;
}

/** Run a job and show its state, with a button that cancels it, in its card. */
async function run(article, path, query, body, show) {
  const box = article.querySelector(".job");
  const controller = new AbortController();
  const status = element("span", { className: "status" });
  const bar = element("progress", { max: 1 });
  bar.setAttribute("aria-label", "Progress");
  const cancel = element("button", { type: "button", textContent: "Cancel" });
  cancel.addEventListener("click", () => controller.abort());
  box.replaceChildren(status, bar, cancel);
  const submit = article.querySelector("[type=submit]");
  submit.disabled = true;
  try {
    const report = (row) => {
      status.textContent = stateText(row);
      if (row.fraction > 0) bar.value = row.fraction;
    };
    const { facts, files } = await runJob(path, query, body, report, controller.signal);
    box.replaceChildren();
    await show(files, facts);
  } catch (error) {
    status.className = "status error";
    status.textContent = error.name === "AbortError" ? "Cancelled." : error.message;
    box.replaceChildren(status);
  } finally {
    submit.disabled = false;
  }
}

function picture(blob, title) {
  const image = element("img", { src: URL.createObjectURL(blob), alt: title });
  image.addEventListener("load", () => enlarge(image, image.naturalWidth));
  const link = element("a", { className: "download", href: image.src, download: blob.filename, textContent: "Download" });
  link.setAttribute("aria-label", `Download ${title}`);
  return element("figure", {}, element("figcaption", { textContent: title }), image, link);
}

/** Use the room that there is, with a whole number of pixels for each one if they are large. */
function enlarge(node, width) {
  const scale = Math.min(node.parentElement.clientWidth, 384) / width;
  node.style.width = `${width * (scale < 2 ? scale : Math.floor(scale))}px`;
}

function sound(blob, title) {
  const player = element("audio", { controls: true, src: URL.createObjectURL(blob) });
  player.setAttribute("aria-label", title);
  return player;
}

function showResults(article, ...nodes) {
  const box = article.querySelector(".results");
  for (const node of box.querySelectorAll("img, audio")) URL.revokeObjectURL(node.src);
  box.replaceChildren(...nodes);
}

function setUpSamples() {
  const article = card("sampling");
  article.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    const query = { ...options(), ...Object.fromEntries(new FormData(event.target)) };
    run(article, "/api/sample", query, null, (files) => {
      const nodes = [picture(files["samples.png"], `${query.n} samples of ${query.prior}`)];
      if (files["samples.wav"]) nodes.push(sound(files["samples.wav"], "Samples, one after another"));
      showResults(article, ...nodes);
    });
  });
}

function setUpInterpolation() {
  const article = card("interpolation");
  const frame = document.getElementById("frame");
  const slider = document.getElementById("path-position");
  let sheet = null, n = 0;
  const draw = () => {
    if (!sheet) return;
    const width = (sheet.width + GAP) / n - GAP;
    frame.width = width;
    frame.height = sheet.height;
    frame.getContext("2d").drawImage(sheet, slider.value * (width + GAP), 0, width, sheet.height, 0, 0, width, sheet.height);
    enlarge(frame, width);
  };
  slider.addEventListener("input", draw);
  article.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    const query = { ...options(), ...Object.fromEntries(new FormData(event.target)) };
    run(article, "/api/interpolate", query, null, async (files, facts) => {
      sheet = await createImageBitmap(files["path.png"]);
      n = facts.n;
      slider.max = n - 1;
      slider.value = 0;
      article.querySelector(".results").hidden = false;
      article.querySelector(".sound").replaceChildren(...(files["path.wav"] ? [sound(files["path.wav"], "The path")] : []));
      draw();
    });
  });
}

/** Put an image on the canvas, cropped at its centre to the shape of the prior. */
function load(bitmap) {
  const [, height, width] = model().shape;
  [canvas.width, canvas.height] = [width, height];
  const scale = Math.min(bitmap.width / width, bitmap.height / height);
  const [w, h] = [width * scale, height * scale];
  context.drawImage(bitmap, (bitmap.width - w) / 2, (bitmap.height - h) / 2, w, h, 0, 0, width, height);
  original = context.getImageData(0, 0, width, height);
  canvas.dataset.filled = "true";
}

function erase(x, y, radius) {
  context.save();
  context.globalCompositeOperation = "destination-out";
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
  context.restore();
}

function setUpBrush() {
  let isDown = false;
  const brush = document.getElementById("brush");
  const paint = (event) => {
    if (!isDown || !original) return;
    const box = canvas.getBoundingClientRect();
    const scale = canvas.width / box.width;
    erase((event.clientX - box.left) * scale, (event.clientY - box.top) * scale, brush.value / 2);
  };
  canvas.addEventListener("pointerdown", (event) => {
    isDown = true;
    canvas.setPointerCapture(event.pointerId);
    paint(event);
  });
  canvas.addEventListener("pointermove", paint);
  canvas.addEventListener("pointerup", () => { isDown = false; });
  document.getElementById("erase-half").addEventListener("click", () => {
    context.clearRect(0, Math.floor(canvas.height / 2), canvas.width, canvas.height);
  });
  document.getElementById("restore").addEventListener("click", () => {
    if (original) context.putImageData(original, 0, 0);
  });
}

function setUpCompletion() {
  const article = card("completion");
  setUpBrush();
  document.getElementById("completion-file").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    try {
      if (file) load(await createImageBitmap(file));
    } catch {
      article.querySelector(".job").textContent = `${file.name}: is no image that this browser shows. Choose a PNG or JPEG.`;
    }
  });
  document.getElementById("completion-sample").addEventListener("click", () => {
    run(article, "/api/sample", { ...options(), n: 1 }, null, async (files) => load(await createImageBitmap(files["samples.png"])));
  });
  article.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!original) {
      article.querySelector(".job").textContent = "There is no image yet. Choose one, or take a sample.";
      return;
    }
    canvas.toBlob((blob) => {
      const query = { ...options(), ...Object.fromEntries(new FormData(event.target)) };
      run(article, "/api/complete/image.png", query, blob, (files, facts) => {
        showResults(
          article,
          picture(files["samples.png"], `${facts.n} completions`),
          picture(files["mean.png"], "Mean"),
          picture(files["std.png"], `Uncertainty: white is a standard deviation of ${facts.std_of_white}, full scale 1`),
        );
      });
    });
  });
}

/** Offer the classes of the prior, a text where it takes one, and completion where it makes images. */
function showPrior() {
  const { classes, takes_text, modality, description } = model();
  label.replaceChildren(new Option("any", ""), ...classes.map((name) => new Option(name, name)));
  label.parentElement.hidden = !classes.length;
  text.parentElement.hidden = !takes_text;
  text.value = "";
  document.getElementById("prior-note").textContent = description;
  card("completion").hidden = modality !== "image";
  original = null;
  delete canvas.dataset.filled;
  context.clearRect(0, 0, canvas.width, canvas.height);
}

export function setUpPriors(about) {
  models = about.models.filter((each) => each.kind === "prior");
  fillModels(prior, models, "prior");
  prior.value = "mnist-matching";
  form.addEventListener("submit", (event) => event.preventDefault());
  prior.addEventListener("change", showPrior);
  setUpSamples();
  setUpInterpolation();
  setUpCompletion();
  showPrior();
}
