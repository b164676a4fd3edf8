// Pictures of sound: waveforms and spectrograms of mono samples.

const N_FFT = 1024;
const FLOOR_DB = -90;
const STOPS = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]]; // of the colour map magma

/** Power spectrum of N_FFT samples by a radix-2 FFT, N_FFT / 2 values. */
export function powerSpectrum(frame) {
  const re = Float64Array.from(frame);
  const im = new Float64Array(N_FFT);
  for (let i = 1, j = 0; i < N_FFT; i++) {
    let bit = N_FFT >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) [re[i], re[j]] = [re[j], re[i]];
  }
  for (let size = 2; size <= N_FFT; size *= 2) {
    for (let k = 0; k < size / 2; k++) {
      const angle = (-2 * Math.PI * k) / size;
      const c = Math.cos(angle), s = Math.sin(angle);
      for (let i = k; i < N_FFT; i += size) {
        const j = i + size / 2;
        const x = re[j] * c - im[j] * s, y = re[j] * s + im[j] * c;
        re[j] = re[i] - x; im[j] = im[i] - y;
        re[i] += x; im[i] += y;
      }
    }
  }
  return Float64Array.from({ length: N_FFT / 2 }, (_, i) => re[i] ** 2 + im[i] ** 2);
}

/** Spectra at as many moments as there are columns; each is the mean of up to four frames around it. */
export function spectra(samples, columns) {
  const window = Float64Array.from({ length: N_FFT }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / N_FFT));
  const frame = new Float64Array(N_FFT);
  return Array.from({ length: columns }, (_, column) => {
    const mean = new Float64Array(N_FFT / 2);
    const n = Math.min(4, Math.max(1, Math.floor(samples.length / columns / N_FFT)));
    for (let part = 0; part < n; part++) {
      const centre = Math.round(((column + (part + 0.5) / n) / columns) * samples.length);
      for (let i = 0; i < N_FFT; i++) frame[i] = (samples[centre - N_FFT / 2 + i] ?? 0) * window[i];
      powerSpectrum(frame).forEach((power, i) => { mean[i] += power / n; });
    }
    return mean;
  });
}

export function loudest(spectra_) {
  return spectra_.reduce((peak, column) => column.reduce((a, b) => Math.max(a, b), peak), 1e-12);
}

function colour(level) {
  const x = Math.min(0.9999, Math.max(0, level)) * (STOPS.length - 1);
  const i = Math.floor(x);
  return STOPS[i].map((low, channel) => low + (x - i) * (STOPS[i + 1][channel] - low));
}

/** Draw spectra, low frequencies at the bottom and enlarged as the square root does; `peak` is 0 dB. */
export function drawSpectra(canvas, columns, peak) {
  const height = 160;
  canvas.width = columns.length;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns.length, height);
  columns.forEach((column, x) => {
    for (let y = 0; y < height; y++) {
      const bin = Math.floor(((height - 1 - y) / height) ** 2 * column.length);
      const decibels = 10 * Math.log10(Math.max(column[bin], 1e-20) / peak);
      image.data.set([...colour(1 - decibels / FLOOR_DB), 255], 4 * (y * columns.length + x));
    }
  });
  context.putImageData(image, 0, 0);
}

/** Draw the extremes of the samples of each column. */
export function drawWave(canvas, samples, columns) {
  canvas.width = columns;
  canvas.height = 64;
  const context = canvas.getContext("2d");
  context.fillStyle = getComputedStyle(canvas).getPropertyValue("--wave");
  for (let x = 0; x < columns; x++) {
    const start = Math.floor((x / columns) * samples.length);
    const end = Math.max(start + 1, Math.floor(((x + 1) / columns) * samples.length));
    let low = 0, high = 0;
    for (let i = start; i < end; i++) {
      if (samples[i] < low) low = samples[i];
      if (samples[i] > high) high = samples[i];
    }
    context.fillRect(x, 32 - 32 * high, 1, Math.max(1, 32 * (high - low)));
  }
}
