// Plays takes from the shelf: one, or two in turn at equal loudness.

export class TakePlayer {
  constructor(picture, changed) {
    this.picture = picture;
    this.changed = changed;
    this.audio = new Audio();
    this.audio.controls = true;
    this.other = new Audio();
    this.audio.preload = this.other.preload = "auto";
    for (const event of ["timeupdate", "play", "pause", "ended", "loadedmetadata"]) {
      this.audio.addEventListener(event, () => changed());
    }
    this.audio.addEventListener("pause", () => this.other.pause());
    this.audio.addEventListener("play", () => this.pair && this.other.play());
    this.audio.addEventListener("seeked", () => this.pair && (this.other.currentTime = this.audio.currentTime));
    this.take = this.pair = null;
  }

  async open(take, play = true) {
    this.pair = null;
    this.take = take;
    this.audio.muted = false;
    this.audio.volume = 1;
    this.audio.src = address(take);
    if (play) await this.audio.play().catch(() => {});
    this.changed();
    await this.draw(take);
  }

  // Plays two takes at once, one of them muted, the louder one turned down to the other.
  async compare(a, b) {
    const lufs = [a, b].map((take) => take.loudness_lufs ?? -23), target = Math.min(...lufs);
    this.take = a;
    this.pair = [a, b];
    [this.audio, this.other].forEach((audio, index) => {
      audio.src = address(this.pair[index]);
      audio.volume = 10 ** ((target - lufs[index]) / 20);
    });
    this.hear(0);
    await Promise.all([this.audio.play(), this.other.play()]).catch(() => {});
    await this.draw(a);
  }

  hear(index) {
    this.audio.muted = index !== 0;
    this.other.muted = index !== 1;
    this.heard = index;
    this.changed();
  }

  close() {
    this.audio.pause();
    this.other.pause();
    this.take = this.pair = null;
  }

  async draw(take) {
    if (take.num_samples > 44100 * 240) return this.picture.begin(take.num_samples, take.sample_rate);
    const sound = await (await fetch(address(take))).arrayBuffer();
    const decoded = await new OfflineAudioContext(2, 1, take.sample_rate).decodeAudioData(sound);
    if (this.take !== take) return;  // another one was opened meanwhile
    this.picture.begin(decoded.length, decoded.sampleRate);
    const channels = Array.from({length: decoded.numberOfChannels}, (_, c) => decoded.getChannelData(c));
    for (let from = 0; from < decoded.length && this.take === take; from += 44100) {
      this.picture.push(channels.map((samples) => samples.subarray(from, from + 44100)));
      await new Promise(requestAnimationFrame);
    }
  }
}

const address = (take) => `/v1/takes/${encodeURIComponent(take.id)}/play`;
