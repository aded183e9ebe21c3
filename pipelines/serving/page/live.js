// Plays a piece while the server makes it: samples come over a WebSocket and are put end to end.

const MARGIN_S = 0.04;  // between the first samples' arrival and their sound, at least
const AGAIN_S = 0.2;  // after a gap, doubled with every further one
const LONGEST_S = 1.6;
const QUICK_S = 0.3;  // from click to first samples; a busy machine takes longer, for the next ones too
const REPORT_MS = 250;

export class LivePlayer {
  // Events: started(facts), piece([Float32Array]), end(error), steered(facts), wrong(message).
  constructor(on) {
    this.on = on;
    this.playing = false;
    this.sources = new Set();  // that sound, or will
  }

  start(request) {
    this.stop();
    this.context ??= new AudioContext({sampleRate: 44100, latencyHint: "interactive"});
    this.context.resume();
    this.clicked = performance.now();
    this.gaps = 0;
    this.next = this.begun = null;  // context time of the next sample, and of the first
    this.facts = null;
    this.playing = true;
    this.stopped = false;
    clearInterval(this.timer);
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = this.socket = new WebSocket(`${scheme}//${location.host}/v1/live`);
    socket.binaryType = "arraybuffer";
    this.unsent = [{type: "start", keep: true, ...request}];
    socket.onopen = () => this.unsent.splice(0).forEach((message) => this.send(message));
    socket.onmessage = ({data}) => socket === this.socket &&
      (typeof data === "string" ? this.hear(JSON.parse(data)) : this.schedule(data));
    socket.onclose = ({code}) => socket === this.socket && this.finish(`the server hung up (${code})`);
    this.timer = setInterval(() => this.report(), REPORT_MS);
  }

  hear(message) {
    if (message.type === "started") {
      this.facts = message;
      this.on.started(message);
    } else if (message.type === "steered") this.on.steered(message);
    else if (message.type === "error") {
      if ("retry_after_s" in message) this.finish(null, false);  // the piece was refused
      this.on.wrong(message.message);
    } else if (message.type === "end") this.finish(message.error);
  }

  schedule(data) {
    const {context, facts} = this, samples = new Float32Array(data), count = facts.channels;
    const length = samples.length / count, buffer = context.createBuffer(count, length, facts.sample_rate);
    const channels = Array.from({length: count}, (_, c) => {
      const channel = buffer.getChannelData(c);
      for (let i = 0; i < length; i++) channel[i] = samples[i * count + c];
      return channel;
    });
    if (this.next === null) {
      const waitedS = (performance.now() - this.clicked) / 1000;
      const marginS = Math.max(MARGIN_S, (waitedS - QUICK_S) / 2);
      this.begun = this.next = context.currentTime + marginS;
      this.firstSoundMs = 1000 * (waitedS + marginS);
    } else if (this.next < context.currentTime) {
      const earliest = context.currentTime + Math.min(LONGEST_S, AGAIN_S * 2 ** this.gaps++);
      this.begun += earliest - this.next;
      this.next = earliest;
    }
    if (!this.stopped) this.sound(buffer);
    this.next += length / facts.sample_rate;
    this.on.piece(channels);
  }

  sound(buffer) {
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.context.destination);
    source.start(this.next);
    this.sources.add(source);
    source.onended = () => this.sources.delete(source);
  }

  get sounding() {
    return this.playing || this.sources.size > 0;
  }

  // Seconds heard so far.
  get time() {
    return this.begun ? Math.max(0, Math.min(this.next, this.context.currentTime) - this.begun) : 0;
  }

  report() {
    if (this.next !== null) this.send({type: "played", seconds: this.time});
  }

  send(message) {
    const state = this.socket?.readyState;
    if (state === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
    else if (state === WebSocket.CONNECTING) this.unsent.push(message);
  }

  steer(prompt, plan) {
    this.send(plan ? {type: "steer", prompt, plan} : {type: "steer", prompt});
  }

  // Ends the piece; the server keeps what was made.
  stop() {
    if (this.playing) this.send({type: "stop"});
    this.stopped = true;
    for (const source of this.sources) source.stop();
    this.sources.clear();
  }

  finish(error, whole = true) {
    clearInterval(this.timer);
    const {socket} = this;
    this.socket = null;
    this.playing = false;
    socket?.close();
    if (whole) this.on.end(error);
    this.facts = null;
  }
}
