// Draws waveform and spectrogram of two channels, column by column, while the samples come.

const SIZE = 1024;
const WINDOW = Float32Array.from({length: SIZE}, (_, i) => 0.5 - 0.5 * Math.cos(2 * Math.PI * i / SIZE));
const FLOOR_DB = -90;

export class Picture {
  // `seek(share)` is called after a click, `mark([start, end])` after a drag, in shares of the whole.
  constructor(canvas, seek, mark) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    const share = (event) => Math.max(0, Math.min(1, event.offsetX / canvas.clientWidth));
    let from = null;
    canvas.addEventListener("pointerdown", (event) => { from = share(event); });
    canvas.addEventListener("pointerup", (event) => {
      if (from === null) return;
      const to = share(event);
      if (Math.abs(to - from) * canvas.clientWidth < 6) seek(to);
      else mark([Math.min(from, to), Math.max(from, to)]);
      from = null;
    });
  }

  // Shows where the sound is and which span is marked, in shares of the whole; null for neither.
  point(head, span) {
    const place = (id, at, width) => {
      const {style} = document.getElementById(id);
      document.getElementById(id).hidden = at === null;
      style.left = `${100 * at}%`;
      if (width !== undefined) style.width = `${100 * width}%`;
    };
    place("head", head);
    place("span", span ? span[0] : null, span ? span[1] - span[0] : 0);
  }

  // Clears the canvas for a piece of so many samples.
  begin(numSamples, sampleRate) {
    const {canvas} = this, scale = Math.min(2, devicePixelRatio || 1);
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * scale));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * scale));
    this.numSamples = numSamples;
    this.sampleRate = sampleRate;
    this.column = 0;
    this.kept = [new Float32Array(0), new Float32Array(0)];
    this.first = 0;  // sample that `kept` begins with
    this.ink = getComputedStyle(canvas).color;
    this.dark = matchMedia("(prefers-color-scheme: dark)").matches;
  }

  // Takes the next samples, one Float32Array a channel, and draws the columns that are complete.
  push(channels) {
    this.kept = this.kept.map((old, c) => {
      const more = channels[Math.min(c, channels.length - 1)];
      const joined = new Float32Array(old.length + more.length);
      joined.set(old);
      joined.set(more, old.length);
      return joined;
    });
    const known = this.first + this.kept[0].length, {width} = this.canvas;
    const last = known >= this.numSamples;
    while (this.column < width) {
      const [from, to] = [this.column, this.column + 1].map((x) => Math.floor(x * this.numSamples / width));
      if (!last && Math.max(to, from + SIZE) > known) break;
      this.kept.forEach((samples, c) => this.drawColumn(samples, c, from, to));
      this.column++;
    }
    const needed = Math.max(0, Math.floor(this.column * this.numSamples / width) - this.first);
    this.kept = this.kept.map((samples) => samples.slice(needed));
    this.first += needed;
  }

  drawColumn(samples, channel, from, to) {
    const {context, canvas, column} = this, half = canvas.height / 2, top = channel * half;
    const wave = half * 0.4, middle = top + wave / 2;
    let low = 0, high = 0;
    for (let i = from - this.first; i < Math.max(to, from + 1) - this.first; i++) {
      low = Math.min(low, samples[i] ?? 0);
      high = Math.max(high, samples[i] ?? 0);
    }
    [low, high] = [low, high].map((value) => Math.sign(value) * Math.abs(value) ** 0.6);  // soft music shows too
    context.fillStyle = this.ink;
    context.fillRect(column, middle - high * wave / 2, 1, Math.max(1, (high - low) * wave / 2));
    const levels = spectrum(samples, from - this.first), rows = Math.round(half - wave) - 2;
    const image = context.createImageData(1, rows);
    for (let row = 0; row < rows; row++) {
      const share = 1 - row / rows, hz = 50 * (16000 / 50) ** share;
      const bin = Math.min(SIZE / 2 - 1, Math.round(hz * SIZE / this.sampleRate));
      const level = Math.max(0, Math.min(1, 1 - levels[bin] / FLOOR_DB));
      const [r, g, b] = shade(level, this.dark);
      image.data.set([r, g, b, 255], row * 4);
    }
    context.putImageData(image, column, Math.round(top + wave));
  }
}

function shade(level, dark) {
  const light = dark ? level : 1 - level;
  return [255 * light ** 1.2, 255 * light ** 0.95, 255 * (0.12 + 0.88 * light ** 0.7)];
}

// Levels in dB of SIZE samples from an offset, by a radix-2 FFT.
function spectrum(samples, offset) {
  const re = new Float32Array(SIZE), im = new Float32Array(SIZE);
  for (let i = 0; i < SIZE; i++) re[reversed[i]] = (samples[offset + i] ?? 0) * WINDOW[i];
  for (let size = 2; size <= SIZE; size *= 2) {
    for (let start = 0; start < SIZE; start += size) {
      for (let k = 0; k < size / 2; k++) {
        const [c, s] = turns[k * (SIZE / size)], i = start + k, j = i + size / 2;
        const x = re[j] * c + im[j] * s, y = im[j] * c - re[j] * s;
        re[j] = re[i] - x; im[j] = im[i] - y;
        re[i] += x; im[i] += y;
      }
    }
  }
  return Float32Array.from({length: SIZE / 2}, (_, i) =>
    20 * Math.log10(1e-9 + 4 * Math.hypot(re[i], im[i]) / SIZE));
}

const turns = Array.from({length: SIZE / 2}, (_, k) =>
  [Math.cos(2 * Math.PI * k / SIZE), Math.sin(2 * Math.PI * k / SIZE)]);
const reversed = Array.from({length: SIZE}, (_, i) => {
  let turned = 0;
  for (let bit = 1; bit < SIZE; bit *= 2) turned = turned * 2 + (i & bit ? 1 : 0);
  return turned;
});
