// The page: what is asked for, what sounds, what waits, and what was made.

import {html, nothing, render} from "./vendor/lit-html.js";
import {ask, readBatch, watchJobs} from "./door.js";
import {LivePlayer} from "./live.js";
import {Picture} from "./picture.js";
import {barAt, planView} from "./plan.js";
import {TakePlayer} from "./takes.js";

const FORMATS = ["wav", "flac", "ogg", "opus"];
const EDITS = {extend: "Continue", inpaint: "Fill the span", vary: "Vary", loop: "Loop"};
const kept = JSON.parse(sessionStorage.getItem("compose") ?? "{}");
const state = {
  prompt: "a slow sad piano piece in D minor, 70 bpm", duration: 20, seed: "", preview: false, ...kept,
  model: null, jobs: [], takes: [], plan: null, ownPlan: false, span: null, a: null, b: null,
  status: "", wrong: "", batch: "",
};
const $ = (id) => document.getElementById(id);
const picture = new Picture($("picture"), (share) => {
  if (takes.take) takes.audio.currentTime = share * takes.take.duration_s;
}, (shares) => {
  if (takes.take) state.span = shares.map((share) => Math.round(share * takes.take.duration_s * 100) / 100);
  show();
});
const takes = new TakePlayer(picture, show);
const live = new LivePlayer({
  started(facts) {
    if (facts.plan?.meter) state.plan = facts.plan;
    picture.begin(Math.round(facts.duration_s * facts.sample_rate), facts.sample_rate);
    say(`playing, seed ${facts.seed}`);
  },
  piece(channels) {
    picture.push(channels);
    document.dispatchEvent(new CustomEvent("piece", {detail: channels}));
    if (live.firstSoundMs) document.body.dataset.firstSoundMs = Math.round(live.firstSoundMs);
    document.body.dataset.gaps = live.gaps;
  },
  steered(facts) {
    if (facts.plan?.meter) state.plan = facts.plan;
    say(`steered: heard from ${facts.at_s.toFixed(1)} s on`);
  },
  end(error) {
    if (error) fail(new Error(error)); else say(live.stopped ? "stopped: what was made is on the shelf" : "the piece is whole");
    refreshTakes();
  },
  wrong: (message) => fail(new Error(message)),
});

function say(text) { state.status = text; state.wrong = ""; show(); }
function fail(error) { state.wrong = error.message; show(); }
const attempt = (action) => async (event) => { try { await action(event); } catch (error) { fail(error); } };

function request() {
  const {prompt, duration, seed, preview} = state;
  const asked = {prompt, duration_s: Number(duration), preview};
  if (String(seed).trim() !== "") asked.seed = Number(seed);
  if (state.ownPlan && state.plan) asked.plan = state.plan;
  return asked;
}

function play() {
  takes.close();
  state.wrong = "";
  say("asking for the first sound");
  live.start(request());
}

function steer() { live.steer(state.prompt, state.ownPlan ? state.plan : null); }

const enqueue = attempt(async () => {
  const job = await ask("POST", "/v1/jobs", request());
  say(`queued: ${job.id}`);
});

const writePlan = attempt(async () => {
  const {prompt, duration_s, seed, plan} = request();
  state.plan = (await ask("POST", "/v1/plans", {prompt, duration_s, seed, plan})).plan;
  say("the planner wrote a plan");
});

const enqueueAll = attempt(async () => {
  const rows = readBatch(state.batch, Number(state.duration));
  if (!rows.length) throw new Error("the list is empty");
  for (const row of rows) await ask("POST", "/v1/jobs", {...row, preview: state.preview});
  state.batch = "";
  say(`queued ${rows.length} pieces`);
});

const edit = (name, take) => attempt(async () => {
  const body = {edit: name, take: take.id};
  if (name === "extend") body.add_s = Number(state.duration);
  if (name === "inpaint") body.spans_s = [state.span];
  if (String(state.seed).trim() !== "") body.seed = Number(state.seed);
  const job = await ask("POST", "/v1/edits", body);
  say(`queued: ${job.id}`);
});

const upload = attempt(async (event) => {
  const [file] = event.target.files;
  if (!file) return;
  say(`reading ${file.name}`);
  const answer = await fetch(`/v1/takes?name=${encodeURIComponent(file.name.slice(0, 100))}`, {method: "POST", body: file});
  event.target.value = "";
  if (!answer.ok) throw new Error((await answer.json()).error.message);
  say(`${file.name} is on the shelf`);
  await refreshTakes();
});

async function refreshTakes() {
  try { state.takes = (await ask("GET", "/v1/takes")).data; } catch (error) { return fail(error); }
  show();
}

async function compare() {
  const [a, b] = await Promise.all([state.a, state.b].map((id) => ask("GET", `/v1/takes/${id}`)));
  live.stop();
  state.span = null;
  await takes.compare(a, b);
}

async function openTake(take) {
  live.stop();
  state.span = null;
  if (take.settings.plan?.meter) state.plan = take.settings.plan;
  await takes.open(take);
}

const set = (name) => (event) => {
  state[name] = event.target.type === "checkbox" ? event.target.checked : event.target.value;
  const {prompt, duration, seed, preview} = state;
  sessionStorage.setItem("compose", JSON.stringify({prompt, duration, seed, preview}));
  show();
};

const composeView = () => html`
  <h2>Compose</h2>
  <label class="wide">What it should sound like
    <textarea id="prompt" rows="2" maxlength="2000" .value=${state.prompt} @input=${set("prompt")}
      @keydown=${(event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && (live.playing ? steer() : play())}></textarea></label>
  <div class="row">
    <label>Length (s)<input id="duration" type="number" min="1" max=${state.model?.longest_s ?? 600} .value=${String(state.duration)} @input=${set("duration")}></label>
    <label>Seed<input id="seed" type="number" min="0" placeholder="drawn" .value=${String(state.seed)} @input=${set("seed")}></label>
    <label class="check"><input type="checkbox" .checked=${state.preview} @change=${set("preview")}>quick preview</label>
    <button id="play" class="main" @click=${play} ?disabled=${!state.prompt.trim()}>Play</button>
    <button id="steer" @click=${steer} ?disabled=${!live.playing || !state.prompt.trim()}>Steer</button>
    <button id="stop" @click=${() => live.stop()} ?disabled=${!live.sounding}>Stop</button>
    <button id="enqueue" @click=${enqueue} ?disabled=${!state.prompt.trim()}>Queue</button>
  </div>
  <p class=${state.wrong ? "wrong" : "dim"} id="status" role="status">${state.wrong || state.status || "Ctrl+Enter plays, and steers what plays."}</p>
  <details><summary>Plan: bars, chords, players</summary>
    <div class="row">
      <label class="check"><input type="checkbox" .checked=${state.ownPlan} ?disabled=${!state.model?.reads_plan || !state.plan} @change=${set("ownPlan")}>follow this plan</label>
      <button id="write-plan" @click=${writePlan} ?disabled=${!state.model?.plans || !state.prompt.trim()}>Let the planner write one</button>
    </div>
    ${state.plan ? planView(state.plan, Number(state.duration) || 10, currentBar(), (plan) => { state.plan = plan; state.ownPlan = true; show(); })
      : html`<p class="dim">There is none yet: play something, or let the planner write one.</p>`}
  </details>
  <details><summary>Many at once</summary>
    <label class="wide">A prompt a line, or CSV with the columns prompt, duration_s, seed; a file can be dropped here
      <textarea id="batch" rows="4" .value=${state.batch} @input=${set("batch")} @drop=${drop} @dragover=${(event) => event.preventDefault()}></textarea></label>
    <div class="row"><button id="enqueue-all" @click=${enqueueAll} ?disabled=${!state.batch.trim()}>Queue all</button></div>
  </details>`;

const drop = attempt(async (event) => {
  if (!event.dataTransfer.files.length) return;
  event.preventDefault();
  state.batch = await event.dataTransfer.files[0].text();
  show();
});

const transportView = () => {
  const {take, pair} = takes;
  if (!take) return html`<p class="dim">${live.playing ? `${live.time.toFixed(1)} s heard` : "Nothing is playing."}</p>`;
  return html`${takes.audio}
    <p class="dim">${take.prompt || take.id}${take.seed === null ? "" : `, seed ${take.seed}`}</p>
    ${pair ? html`<div class="row" role="group" aria-label="Compare at equal loudness">
      ${pair.map((one, index) => html`<button aria-pressed=${takes.heard === index} class=${takes.heard === index ? "main" : ""}
        @click=${() => takes.hear(index)}>${"AB"[index]}: ${one.id}</button>`)}</div>` : nothing}
    <div class="row">
      ${["From (s)", "To (s)"].map((name, index) => html`<label>${name}<input type="number" min="0" max=${take.duration_s} step="0.01"
        .value=${state.span ? String(state.span[index]) : ""} @change=${(event) => {
          const span = [...(state.span ?? [0, take.duration_s])];
          span[index] = Math.max(0, Math.min(take.duration_s, Number(event.target.value)));
          state.span = span[0] < span[1] ? span : null;
          show();
        }}></label>`)}
      ${Object.entries(EDITS).map(([name, text]) => html`<button @click=${edit(name, take)} title=${state.model?.edits.includes(name) ? "" : "the loaded pipeline cannot do this"}
        ?disabled=${!state.model?.edits.includes(name) || (name === "inpaint" && !state.span)}>${text}${name === "extend" ? ` by ${state.duration} s` : ""}</button>`)}
    </div>`;
};

const queueView = () => {
  const open = state.jobs.filter(({state: now}) => now === "queued" || now === "running");
  const failed = state.jobs.filter(({state: now}) => now === "failed").slice(0, 3);
  if (!open.length && !failed.length) return nothing;
  return html`<h2>Queue</h2><ul class="list">
    ${[...open, ...failed].map((job) => html`<li>
      <span class="name">${job.fields.prompt}</span>
      ${job.state === "failed" ? html`<span class="wrong">${job.error}</span>` : html`
        <progress max="1" .value=${job.progress} aria-label=${`progress of ${job.id}`}></progress>
        <span class="dim">${job.state === "queued" ? "waits" : `about ${Math.ceil(job.left_s)} s`}</span>
        <button aria-label=${`Cancel ${job.id}`} @click=${attempt(() => ask("DELETE", `/v1/jobs/${job.id}`))}>Cancel</button>`}
    </li>`)}</ul>`;
};

const shelfView = () => html`<h2>Shelf</h2>
  <div class="row"><button id="compare" class="main" ?disabled=${!state.a || !state.b || state.a === state.b} @click=${attempt(compare)}>Compare A and B</button>
    <label>Add a sound file<input type="file" accept="audio/*" @change=${upload}></label>
    <span class="dim">${state.takes.length} ${state.takes.length === 1 ? "take" : "takes"}</span></div>
  <ul class="list">${state.takes.map((take) => html`<li aria-current=${takes.take?.id === take.id}>
    <button aria-label=${`Play ${take.id}`} @click=${attempt(() => openTake(take))}>▶</button>
    <span class="name">${take.prompt || take.id}<br><span class="dim">${take.duration_s.toFixed(1)} s, ${take.seed === null ? "added" : `seed ${take.seed}`}</span></span>
    ${["a", "b"].map((slot) => html`<label class="check"><input type="radio" name=${slot} .checked=${state[slot] === take.id}
      aria-label=${`${take.id} is ${slot.toUpperCase()}`} @change=${() => { state[slot] = take.id; show(); }}>${slot.toUpperCase()}</label>`)}
    <select aria-label=${`Download ${take.id}`} @change=${(event) => { download(take, event.target.value); event.target.value = ""; }}>
      <option value="">Download</option>
      ${[...FORMATS, ...(state.model?.midi ? ["mid"] : []), "tokens"].map((format) => html`<option value=${format}>${format}</option>`)}
    </select>
    <button aria-label=${`Delete ${take.id}`} @click=${attempt(async () => {
      if (!confirm(`Delete "${take.prompt}"?`)) return;
      await ask("DELETE", `/v1/takes/${take.id}`);
      await refreshTakes();
    })}>✕</button></li>`)}</ul>`;

function download(take, format) {
  const link = document.createElement("a");
  link.href = `/v1/takes/${take.id}/` + (["tokens", "mid"].includes(format) ? format : `audio?format=${format}`);
  link.download = "";
  link.click();
}

function currentBar() {
  const time = live.playing ? live.time : takes.take ? takes.audio.currentTime : -1;
  return state.plan && time >= 0 ? barAt(state.plan, time) : -1;
}

function show() {
  render(composeView(), $("compose"));
  render(transportView(), $("transport"));
  render(queueView(), $("queue"));
  render(shelfView(), $("shelf"));
  const {take, audio} = takes, {facts} = live;
  const whole = take?.duration_s ?? facts?.duration_s;
  picture.point(take ? audio.currentTime / whole : facts ? live.time / whole : null,
    take && state.span ? state.span.map((at) => at / whole) : null);
}

watchJobs((jobs) => {
  const ended = (list) => list.filter(({state: now}) => now === "done").map(({id}) => id).join();
  const changed = ended(jobs) !== ended(state.jobs);
  state.jobs = jobs;
  if (changed) refreshTakes(); else show();
}, () => fail(new Error("the server cannot be reached; the page tries again")));

let sounded = false;
setInterval(() => {
  if (live.sounding || sounded) show();
  sounded = live.sounding;
}, 250);
ask("GET", "/v1/models").then(({data: [model]}) => {
  state.model = model;
  $("model").textContent = `${model.id}, up to ${model.longest_s} s`;
  show();
}).catch(fail);
refreshTakes();
show();
