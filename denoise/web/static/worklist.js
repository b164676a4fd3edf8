// The list of files of a tab: each is sent, shows its progress, can be cancelled, shown, and downloaded.

import { runJob, stateText } from "./api.js";

const MAX_SENT = 3; // files of a tab that are sent and denoised at once: the server refuses more than some jobs

export function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

/** Fill a select with the bundled models of a kind. */
export function fillModels(select, models, kind, modality) {
  for (const model of models) {
    if (model.kind !== kind || (modality && model.modality !== modality)) continue;
    select.append(new Option(model.name, model.name));
  }
}

export class Worklist {
  /**
   * @param section section of the tab, with a form of settings, a drop zone and a list.
   * @param path endpoint of the jobs, before the name.
   * @param options {maxUpload, prepare(file) -> further options, summarise(facts) -> text, show(item, isShown)};
   *   isShown() tells whether nothing was chosen since.
   */
  constructor(section, path, options) {
    this.section = section;
    this.path = path;
    this.options = options;
    this.list = section.querySelector(".worklist");
    this.form = section.querySelector("form.panel");
    this.nSent = 0;
    this.waiting = []; // functions that send the next files
    this.shown = null;
    this.shows = 0; // calls of show and remove, of which the last one counts
    const input = section.querySelector("input[type=file]");
    input.addEventListener("change", () => {
      this.add(input.files);
      input.value = ""; // the same file can be chosen again
    });
    this.form.addEventListener("submit", (event) => event.preventDefault());
    for (const kind of ["dragover", "drop", "dragleave"]) {
      section.addEventListener(kind, (event) => {
        event.preventDefault();
        section.classList.toggle("dragging", kind === "dragover");
        if (kind === "drop") this.add(event.dataTransfer.files);
      });
    }
  }

  add(files) {
    for (const file of files) {
      const item = { file, row: element("li") };
      item.name = element("span", { className: "name", textContent: file.name });
      item.status = element("span", { className: "status" });
      item.status.setAttribute("role", "status");
      item.buttons = element("div", { className: "buttons" });
      item.row.append(item.name, item.status, item.buttons);
      this.list.append(item.row);
      this.run(item);
    }
  }

  /** Denoise a file with the settings of the form, and show it if nothing else is shown. */
  async run(item, further = {}) {
    if (item.isRunning) return;
    item.isRunning = true;
    const controller = new AbortController();
    const bar = element("progress", { max: 1, value: 0 });
    bar.setAttribute("aria-label", `Progress of ${item.file.name}`);
    const text = element("span");
    item.status.className = "status";
    item.status.replaceChildren(text, bar);
    item.buttons.replaceChildren(this.button("Cancel", item, () => controller.abort()));
    const settings = Object.fromEntries(new FormData(this.form)); // of this moment, even if it waits
    let isSent = false;
    try {
      if (item.file.size > this.options.maxUpload) {
        throw new Error(`${item.file.name}: is larger than ${this.options.maxUpload / 2 ** 20} MiB, the limit of this server.`);
      }
      text.textContent = stateText({ state: "queued" });
      await this.waitForTurn(controller.signal);
      isSent = true;
      const query = { ...settings, ...(await this.options.prepare(item.file)), ...further };
      const path = `${this.path}/${encodeURIComponent(item.file.name)}`;
      const report = (row) => {
        text.textContent = stateText(row);
        if (row.fraction > 0) bar.value = row.fraction;
        else bar.removeAttribute("value");
      };
      item.result = await runJob(path, query, item.file, report, controller.signal);
      this.finish(item);
    } catch (error) {
      this.fail(item, error.name === "AbortError" ? "Cancelled." : error.message);
    } finally {
      item.isRunning = false;
      if (isSent) this.sendNext();
    }
  }

  /** Wait until fewer than MAX_SENT files are sent and denoised. */
  async waitForTurn(signal) {
    if (this.nSent < MAX_SENT) {
      this.nSent++;
      return;
    }
    await new Promise((resolve, reject) => {
      this.waiting.push(resolve);
      signal.addEventListener("abort", () => {
        const i = this.waiting.indexOf(resolve);
        if (i >= 0) this.waiting.splice(i, 1);
        reject(signal.reason); // without effect if its turn has come
      });
    });
  }

  /** Let the next file take the place of one that has ended. */
  sendNext() {
    if (this.waiting.length) this.waiting.shift()();
    else this.nSent--;
  }

  finish(item) {
    const { facts, files } = item.result;
    item.status.className = "status";
    item.status.textContent = [this.options.summarise(facts), ...facts.warnings].join(" – ");
    URL.revokeObjectURL(item.url);
    item.url = URL.createObjectURL(files.output);
    const link = element("a", { className: "download", href: item.url, download: files.output.filename, textContent: "Download" });
    link.setAttribute("aria-label", `Download ${files.output.filename}`);
    item.buttons.replaceChildren(this.button("Show", item, () => this.show(item)), link, this.button("Remove", item, () => this.remove(item)));
    if (!this.shown || this.shown === item) this.show(item);
  }

  fail(item, message) {
    item.status.className = "status error";
    item.status.textContent = message;
    item.buttons.replaceChildren(this.button("Try again", item, () => this.run(item)), this.button("Remove", item, () => this.remove(item)));
  }

  async show(item) {
    const count = ++this.shows;
    const isShown = () => this.shows === count;
    this.shown?.row.classList.remove("is-shown");
    this.shown = item;
    item.row.classList.add("is-shown");
    try {
      await this.options.show(item, isShown);
    } catch (error) {
      if (!isShown() || item.isRunning) return; // what is shown next ends the decoding of this one
      item.status.className = "status error";
      item.status.textContent = `${item.file.name}: cannot be shown (${error.message}). Download it.`;
    }
  }

  remove(item) {
    if (item.url) URL.revokeObjectURL(item.url);
    item.row.remove();
    if (this.shown === item) {
      this.shown = null;
      this.shows++;
      this.options.show(null);
    }
  }

  button(word, item, action) {
    const button = element("button", { type: "button", textContent: word });
    button.setAttribute("aria-label", `${word} ${item.file.name}`);
    button.addEventListener("click", action);
    return button;
  }
}
