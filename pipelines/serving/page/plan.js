// The plan as a strip of bars: tempo, key, players, sections, and a chord for every bar.
// A plan is the JSON of docs/plans.md; bars and beats count from 1.

import {html} from "./vendor/lit-html.js";

const NOTES = ["C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"];  // as the server spells them
const CHORDS = ["", "m", "dim"].flatMap((kind) => NOTES.map((note) => note + kind));
const KEYS = ["major", "minor"].flatMap((mode) => NOTES.map((note) => `${note} ${mode}`));
const METERS = ["4/4", "3/4", "2/4", "6/8"];
const SECTIONS = ["intro", "verse", "chorus", "bridge", "outro"];

// Beats of a bar; those of 6/8 are its two dotted quarters.
const beatsOf = ({meter}) => meter === "6/8" ? 2 : Number((meter ?? "4/4").split("/")[0]);

// Bars, from that of the plan's first beat, until a time.
const barsUntil = (plan, timeS) => ((plan.first_beat ?? 0) + timeS * plan.bpm / 60) / beatsOf(plan);

// The bar, counted from 0, that sounds at a time.
export const barAt = (plan, timeS) => Math.floor(barsUntil(plan, timeS));

const numBars = (plan, durationS) => Math.max(1, Math.min(256, Math.ceil(barsUntil(plan, durationS) - 1e-6)));

// The chord that sounds at the start of each bar.
function chordsByBar(plan, durationS) {
  const chords = Array.isArray(plan.chords) ? plan.chords : [];
  return Array.from({length: numBars(plan, durationS)}, (_, index) =>
    chords.filter(({bar, beat}) => bar < index + 1 || (bar === index + 1 && beat <= 1)).at(-1)?.chord ?? "");
}

// The plan with another chord in one bar (counted from 0); the bar after it keeps its own.
function withChord(plan, durationS, index, chord) {
  const sounding = chordsByBar(plan, durationS), chords = [...plan.chords];
  const kept = chords.filter(({bar}) => bar !== index + 1);
  if (chord) kept.push({bar: index + 1, beat: 1, chord});
  const after = index + 1 < sounding.length && !kept.some(({bar, beat}) => bar === index + 2 && beat === 1);
  if (after && sounding[index + 1]) kept.push({bar: index + 2, beat: 1, chord: sounding[index + 1]});
  kept.sort((a, b) => a.bar - b.bar || a.beat - b.beat);
  return {...plan, chords: kept};
}

// The plan in another meter, with the chords that its bars began with; a tune does not fit any more.
function withMeter(plan, durationS, meter) {
  const chords = chordsByBar(plan, durationS).map((chord, index) => ({bar: index + 1, beat: 1, chord}));
  return {...plan, meter, melody: [], chords: chords.filter(({chord}) => chord)};
}

// The name of the section that begins with each bar, "" where none does.
function sectionStarts(plan, count) {
  const starts = Array(count).fill("");
  let bar = 0;
  for (const {name, bars} of plan.sections ?? []) {
    if (bar < count) starts[Math.floor(bar)] = name;
    bar += bars;
  }
  return starts;
}

// The plan with a section that begins with a bar, or without the one that did.
function withSection(plan, count, index, name) {
  const starts = sectionStarts(plan, count);
  starts[index] = name;
  if (name && !starts[0]) starts[0] = "intro";
  const sections = [];
  for (const start of starts) {
    if (start) sections.push({name: start, bars: 1});
    else if (sections.length) sections.at(-1).bars++;
  }
  return {...plan, sections};
}

// `none` is what stands for "" among the options, if that may be chosen; a value that is no option is one too.
const select = (name, value, options, none, change) => html`
  <select aria-label=${name} @change=${(event) => change(event.target.value)}>
    ${[...new Set([...(none ? [""] : []), ...options, value])].map((option) =>
      html`<option value=${option} ?selected=${option === value}>${option || none}</option>`)}
  </select>`;
const choose = (label, value, options, none, change) => html`
  <label>${label}${select(label, value, options, none, change)}</label>`;

export function planView(plan, durationS, bar, change) {
  const chords = chordsByBar(plan, durationS), starts = sectionStarts(plan, chords.length);
  const drums = {true: "with", false: "without"}[plan.drums] ?? "";
  const set = (fields) => change({...plan, ...fields});
  return html`
    <div class="row">
      <label>Tempo (bpm)<input type="number" min="20" max="400" step="any" .value=${String(Math.round(plan.bpm * 100) / 100)}
        @change=${(event) => event.target.checkValidity() && event.target.value && set({bpm: Number(event.target.value)})}></label>
      ${choose("Key", plan.key ?? "", KEYS, "open", (key) => set({key: key || null}))}
      ${choose("Meter", plan.meter, METERS, null, (meter) => change(withMeter(plan, durationS, meter)))}
      ${choose("Drums", drums, ["with", "without"], "open", (value) => set({drums: value ? value === "with" : null}))}
      <label>Players<input .value=${(plan.instruments ?? []).join(", ")} placeholder="flute, piano"
        @change=${(event) => set({instruments: event.target.value.split(",").map((name) => name.trim()).filter(Boolean)})}></label>
    </div>
    <ol class="bars" aria-label="Bars">
      ${chords.map((chord, index) => html`
        <li class=${starts[index] ? "section" : ""} aria-current=${index === bar ? "true" : "false"}>
          <span class="dim">${index + 1}</span>
          ${select(`Section from bar ${index + 1}`, starts[index], SECTIONS, "+",
            (name) => change(withSection(plan, chords.length, index, name)))}
          ${select(`Chord of bar ${index + 1}`, chord, CHORDS, "–",
            (name) => change(withChord(plan, durationS, index, name)))}
        </li>`)}
    </ol>`;
}
