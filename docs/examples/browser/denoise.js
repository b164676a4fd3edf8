// Denoise audio with a file of `denoise export`, hop by hop, in a page, an audio worklet or Node.

/** A loop over the step of an exported network, which holds its state. All channels share one mask. */
export class StreamDenoiser {
  constructor(ort, session, stream) {
    Object.assign(this, { ort, session, stream });
  }

  /** Load an exported network; `bytes` is a Uint8Array of the file. */
  static async load(ort, bytes) {
    const { stream } = readMetadata(bytes);
    if (!stream) throw new Error("the file holds no streaming network; export speech, for instance");
    return new StreamDenoiser(ort, await ort.InferenceSession.create(bytes), stream);
  }

  /** Return another loop over the same network. */
  copy() {
    return new StreamDenoiser(this.ort, this.session, this.stream);
  }

  /** Begin a recording. */
  start(sampleRate, channels) {
    this.channels = channels;
    this.hop = Math.max(1, Math.round(this.stream.hop_s * sampleRate));
    this.delay = this.stream.delay * this.hop; // samples by which the output of `step` lags behind its input
    const sizes = { batch: 1, channels, hop: this.hop };
    this.state = {};
    for (const [name, { shape, value }] of Object.entries(this.stream.states)) {
      const dims = shape.map((size) => resolveSize(size, sizes));
      const data = new Float32Array(dims.reduce((a, b) => a * b, 1)).fill(value);
      this.state[name] = new this.ort.Tensor("float32", data, dims);
    }
  }

  /** Denoise whole hops: one channel after the other, as many samples of each. */
  async step(samples) {
    const dims = [1, this.channels, samples.length / this.channels];
    const feeds = { noisy: new this.ort.Tensor("float32", samples, dims) };
    for (const name in this.state) feeds[`state.${name}`] = this.state[name];
    const outputs = await this.session.run(feeds);
    for (const name in this.state) this.state[name] = outputs[`next_state.${name}`];
    return outputs.denoised.data;
  }

  /** Denoise a recording: arrays of equal length, one for each channel. The output is as long, without the delay. */
  async denoise(sampleRate, channels, onProgress = () => {}) {
    this.start(sampleRate, channels.length);
    const length = channels[0].length;
    const block = 32 * this.hop;
    const hops = Math.ceil((length + this.delay) / this.hop);
    const denoised = channels.map(() => new Float32Array(hops * this.hop));
    for (let start = 0; start < hops * this.hop; start += block) {
      const n = Math.min(block, hops * this.hop - start);
      const samples = new Float32Array(channels.length * n);
      channels.forEach((channel, i) => samples.set(channel.subarray(start, start + n), i * n));
      const output = await this.step(samples);
      denoised.forEach((channel, i) => channel.set(output.subarray(i * n, (i + 1) * n), start));
      onProgress(start / length);
    }
    return denoised.map((channel) => channel.subarray(this.delay, this.delay + length));
  }
}

/** Return the size that an expression such as "48*batch" or "hop+1" stands for. */
function resolveSize(size, sizes) {
  if (typeof size === "number") return size;
  const [, factor, name, offset] = size.match(/^(?:(\d+)\*)?(\w+?)(?:\+(\d+))?$/);
  return Number(factor ?? 1) * sizes[name] + Number(offset ?? 0);
}

/** Return the metadata of an ONNX file, parsed: field 14 of its protocol buffer holds pairs of key and JSON. */
export function readMetadata(bytes) {
  const metadata = {};
  for (const [field, value] of readFields(bytes)) {
    if (field !== 14) continue;
    const pair = Object.fromEntries(readFields(value));
    const [key, json] = [pair[1], pair[2]].map((text) => new TextDecoder().decode(text));
    metadata[key] = JSON.parse(json);
  }
  return metadata;
}

/** Iterate over the fields of a protocol buffer: their numbers and bytes, or values of integers. */
function* readFields(bytes) {
  let position = 0;
  const readInteger = () => {
    for (let value = 0, scale = 1; ; scale *= 128) {
      if (position >= bytes.length) throw new Error("the ONNX file is truncated");
      const byte = bytes[position++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (position < bytes.length) {
    const tag = readInteger();
    const kind = tag & 7;
    if (kind === 0) {
      yield [tag >>> 3, readInteger()];
      continue;
    }
    const length = { 1: 8, 2: kind === 2 ? readInteger() : 0, 5: 4 }[kind];
    if (length === undefined) throw new Error("not an ONNX file");
    if (position + length > bytes.length) throw new Error("the ONNX file is truncated");
    yield [tag >>> 3, bytes.subarray(position, (position += length))];
  }
}

/** Return a WAV file of 16-bit integers as a Blob. */
function encodeWav(channels, sampleRate) {
  const [n, length] = [channels.length, channels[0].length];
  const view = new DataView(new ArrayBuffer(44 + 2 * n * length));
  const writeText = (offset, text) => [...text].forEach((c, i) => view.setUint8(offset + i, c.charCodeAt(0)));
  writeText(0, "RIFF");
  view.setUint32(4, 36 + 2 * n * length, true);
  writeText(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, n, true);
  view.setUint32(24, sampleRate, true);
  view.setUint32(28, 2 * n * sampleRate, true);
  view.setUint16(32, 2 * n, true);
  view.setUint16(34, 16, true);
  writeText(36, "data");
  view.setUint32(40, 2 * n * length, true);
  for (let i = 0; i < length; i++) {
    for (let c = 0; c < n; c++) {
      const sample = Math.max(-32768, Math.min(32767, Math.round(32768 * channels[c][i])));
      view.setInt16(44 + 2 * (n * i + c), sample, true);
    }
  }
  return new Blob([view], { type: "audio/wav" });
}

/** Return the sample rate in the header of a WAV file; that of most other files is decoded as 48 kHz. */
function readSampleRate(buffer) {
  const view = new DataView(buffer);
  const isWav = buffer.byteLength > 44 && view.getUint32(0) === 0x52494646 && view.getUint32(12) === 0x666d7420;
  return isWav ? view.getUint32(24, true) : 48_000;
}

async function runPage() {
  const get = (id) => document.getElementById(id);
  const show = (text) => (get("status").textContent = text);
  const ort = await import("./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs");
  ort.env.wasm.numThreads = 1; // several need a page that is isolated from other origins
  const bytes = new Uint8Array(await (await fetch("speech.onnx")).arrayBuffer());
  const denoiser = await StreamDenoiser.load(ort, bytes);

  const denoiseFile = async (file) => {
    const buffer = await file.arrayBuffer();
    const rate = readSampleRate(buffer);
    const audio = await new OfflineAudioContext(1, 1, rate).decodeAudioData(buffer);
    const channels = Array.from({ length: audio.numberOfChannels }, (_, i) => audio.getChannelData(i));
    const started = performance.now();
    const denoised = await denoiser.copy().denoise(rate, channels, (done) => show(`${Math.round(100 * done)} %`));
    const speed = (1000 * audio.duration) / (performance.now() - started);
    const url = URL.createObjectURL(encodeWav(denoised, rate));
    Object.assign(get("player"), { src: url, hidden: false });
    const name = `${file.name.replace(/\.\w+$/, "")}.denoised.wav`;
    Object.assign(get("download"), { href: url, download: name, hidden: false });
    show(`${name}: ${speed.toFixed(1)} x real time`);
  };

  const denoiseMicrophone = async () => {
    const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
    const stream = await navigator.mediaDevices.getUserMedia({ audio });
    const context = new AudioContext();
    await context.audioWorklet.addModule("denoise.js");
    const live = denoiser.copy();
    live.start(context.sampleRate, 1);
    const node = new AudioWorkletNode(context, "hops", { processorOptions: { hop: live.hop } });
    let last = Promise.resolve(); // one step after the other
    node.port.onmessage = ({ data }) => {
      last = last.then(() => live.step(data)).then((denoised) => node.port.postMessage(denoised));
    };
    context.createMediaStreamSource(stream).connect(node).connect(context.destination);
    const latency = (live.delay + 2 * live.hop) / context.sampleRate;
    show(`The microphone is denoised, ${Math.round(1000 * latency)} ms late`);
  };

  const report = (action) => (...given) => action(...given).catch((error) => show(`Error: ${error.message}`));
  get("file").onchange = report(() => denoiseFile(get("file").files[0]));
  const drop = get("drop");
  drop.ondragover = (event) => (event.preventDefault(), drop.classList.add("over"));
  drop.ondragleave = () => drop.classList.remove("over");
  drop.ondrop = (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    report(denoiseFile)(event.dataTransfer.files[0]);
  };
  get("microphone").onclick = report(async () => {
    get("microphone").disabled = true;
    await denoiseMicrophone();
  });
  get("microphone").disabled = false;
  show("Ready");
}

if (typeof registerProcessor === "function") {
  // In the audio worklet: hops go to the page, and denoised ones come back.
  class Hops extends AudioWorkletProcessor {
    constructor({ processorOptions: { hop } }) {
      super();
      this.input = new Float32Array(hop);
      this.filled = 0;
      this.ready = []; // denoised hops
      this.position = 0; // in the first of them
      this.isPlaying = false;
      this.port.onmessage = ({ data }) => this.ready.push(data);
    }

    process([[input]], [[output]]) {
      for (let i = 0; i < output.length; i++) {
        this.input[this.filled++] = input ? input[i] : 0;
        if (this.filled === this.input.length) {
          this.port.postMessage(this.input);
          this.input = new Float32Array(this.input.length);
          this.filled = 0;
        }
        this.isPlaying ||= this.ready.length > 1; // one hop in reserve
        if (!this.isPlaying) continue;
        output[i] = this.ready[0][this.position++];
        if (this.position === this.ready[0].length) {
          this.ready.shift();
          this.position = 0;
          this.isPlaying = this.ready.length > 0;
        }
      }
      return true;
    }
  }
  registerProcessor("hops", Hops);
} else if (typeof document !== "undefined") {
  runPage().catch((error) => (document.getElementById("status").textContent = `Error: ${error.message}`));
}
