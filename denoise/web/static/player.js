// Plays the same moment of several versions of a recording, of which one is heard.

const FADE_S = 0.008;

export class Player {
  /** @param onTick called with the position in seconds while it plays. */
  constructor(onTick) {
    this.onTick = onTick;
    this.buffers = {};
    this.version = "after";
    this.position = 0;
    this.gains = {};
    this.sources = [];
  }

  get context() {
    this.audioContext ??= new AudioContext(); // browsers want a click first, or start it suspended
    return this.audioContext;
  }

  get duration() {
    return Math.max(0, ...Object.values(this.buffers).map((buffer) => buffer.duration));
  }

  get isPlaying() {
    return this.sources.length > 0;
  }

  get now() {
    return this.isPlaying ? this.startPosition + this.context.currentTime - this.startTime : this.position;
  }

  /** Decode WAV files of two versions, unless they are not wanted any more; what was removed is their difference. */
  async load(before, after, isWanted = () => true) {
    this.pause();
    const [a, b] = await Promise.all([before, after].map(async (blob) => this.context.decodeAudioData(await blob.arrayBuffer())));
    if (!isWanted()) return;
    const removed = this.context.createBuffer(a.numberOfChannels, a.length, a.sampleRate);
    for (let channel = 0; channel < a.numberOfChannels; channel++) {
      const x = a.getChannelData(channel), y = b.getChannelData(channel);
      removed.copyToChannel(x.map((value, i) => value - (y[i] ?? 0)), channel);
    }
    this.buffers = { before: a, after: b, removed };
    this.position = 0;
  }

  /** The mean of the channels of a version. */
  mono(version) {
    const buffer = this.buffers[version];
    const mean = new Float32Array(buffer.length);
    for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
      const x = buffer.getChannelData(channel);
      for (let i = 0; i < mean.length; i++) mean[i] += x[i] / buffer.numberOfChannels;
    }
    return mean;
  }

  async play() {
    await this.context.resume();
    if (this.position >= this.duration - 0.01) this.position = 0;
    this.startTime = this.context.currentTime;
    this.startPosition = this.position;
    for (const [version, buffer] of Object.entries(this.buffers)) {
      const gain = this.context.createGain();
      gain.gain.value = version === this.version ? 1 : 0;
      gain.connect(this.context.destination);
      const source = new AudioBufferSourceNode(this.context, { buffer });
      source.connect(gain);
      source.start(this.startTime, this.position);
      this.gains[version] = gain;
      this.sources.push(source);
    }
    this.tick();
  }

  pause() {
    this.position = Math.min(this.now, this.duration);
    for (const source of this.sources) source.stop();
    this.sources = [];
    this.onTick(this.position);
  }

  seek(position) {
    const wasPlaying = this.isPlaying;
    if (wasPlaying) this.pause();
    this.position = Math.min(Math.max(0, position), this.duration);
    this.onTick(this.position);
    if (wasPlaying) this.play();
  }

  /** Hear another version from this moment on; both play on together, so that nothing jumps. */
  switchTo(version) {
    this.version = version;
    for (const [each, gain] of Object.entries(this.gains)) {
      gain.gain.setTargetAtTime(each === version ? 1 : 0, this.context.currentTime, FADE_S / 3);
    }
  }

  tick() {
    if (!this.isPlaying) return;
    if (this.now >= this.duration) {
      this.pause();
      return;
    }
    this.onTick(this.now);
    requestAnimationFrame(() => this.tick());
  }
}
