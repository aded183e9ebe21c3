// The plan as a strip of bars: tempo, key, players, sections, and a chord for every bar.
// A plan is the JSON of docs/plans.md; bars and beats count from 1.

import {html} from "./vendor/lit-html.js";

const NOTES = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"];
export const CHORDS = ["", "m", "dim"].flatMap((kind) => NOTES.map((note) => note + kind));
const KEYS = ["major", "minor"].flatMap((mode) => NOTES.map((note) => `${note} ${mode}`));
const METERS = ["4/4", "3/4", "2/4", "6/8"];
const SECTIONS = ["intro", "verse", "chorus", "bridge", "outro"];

const beatsOf = (plan) => Number((plan.meter ?? "4/4").split("/")[0]);

export function numBars(plan, durationS) {
  return Math.max(1, Math.min(256, Math.ceil(durationS * plan.bpm / 60 / beatsOf(plan) - 1e-6)));
}

// The chord that sounds at the start of each bar.
export function chordsByBar(plan, durationS) {
  const chords = Array.isArray(plan.chords) ? plan.chords : [];
  return Array.from({length: numBars(plan, durationS)}, (_, index) =>
    chords.filter(({bar, beat}) => bar < index + 1 || (bar === index + 1 && beat <= 1)).at(-1)?.chord ?? "");
}

// The plan with another chord in one bar (counted from 0); the bar after it keeps its own.
export function withChord(plan, durationS, index, chord) {
  const sounding = chordsByBar(plan, durationS), chords = [...plan.chords];
  const kept = chords.filter(({bar}) => bar !== index + 1);
  if (chord) kept.push({bar: index + 1, beat: 1, chord});
  const after = index + 1 < sounding.length && !kept.some(({bar, beat}) => bar === index + 2 && beat === 1);
  if (after && sounding[index + 1]) kept.push({bar: index + 2, beat: 1, chord: sounding[index + 1]});
  kept.sort((a, b) => a.bar - b.bar || a.beat - b.beat);
  return {...plan, chords: kept};
}

// The name of the section that begins with each bar, "" where none does.
export function sectionStarts(plan, count) {
  const starts = Array(count).fill("");
  let bar = 0;
  for (const {name, bars} of plan.sections ?? []) {
    if (bar < count) starts[Math.floor(bar)] = name;
    bar += bars;
  }
  return starts;
}

// The plan with a section that begins with a bar, or without the one that did.
export function withSection(plan, count, index, name) {
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

const choose = (label, value, options, change, name = label) => html`
  <label>${label}
    <select aria-label=${name} @change=${(event) => change(event.target.value)}>
      ${options.map(([name, text]) => html`<option value=${name} ?selected=${name === value}>${text}</option>`)}
    </select></label>`;

export function planView(plan, durationS, bar, change) {
  const chords = chordsByBar(plan, durationS), starts = sectionStarts(plan, chords.length);
  const drums = plan.drums === true ? "yes" : plan.drums === false ? "no" : "";
  const set = (fields) => change({...plan, ...fields});
  return html`
    <div class="row">
      <label>Tempo (bpm)<input type="number" min="20" max="400" step="any" .value=${String(Math.round(plan.bpm * 100) / 100)}
        @change=${(event) => event.target.checkValidity() && event.target.value && set({bpm: Number(event.target.value)})}></label>
      ${choose("Key", plan.key ?? "", [["", "open"], ...KEYS.map((key) => [key, key])], (key) => set({key: key || null}))}
      ${choose("Meter", plan.meter, METERS.map((meter) => [meter, meter]), (meter) => set({meter}))}
      ${choose("Drums", drums, [["", "open"], ["yes", "with"], ["no", "without"]], (value) => set({drums: value ? value === "yes" : null}))}
      <label>Players<input .value=${(plan.instruments ?? []).join(", ")} placeholder="flute, piano"
        @change=${(event) => set({instruments: event.target.value.split(",").map((name) => name.trim()).filter(Boolean)})}></label>
    </div>
    <ol class="bars" aria-label="Bars">
      ${chords.map((chord, index) => html`
        <li class=${starts[index] ? "section" : ""} aria-current=${index === bar ? "true" : "false"}>
          ${choose(String(index + 1), chord, [["", "–"], ...CHORDS.map((name) => [name, name])],
            (name) => change(withChord(plan, durationS, index, name)), `Chord of bar ${index + 1}`)}
          ${choose("", starts[index], [["", "·"], ...SECTIONS.map((name) => [name, name])],
            (name) => change(withSection(plan, chords.length, index, name)), `Section from bar ${index + 1}`)}
        </li>`)}
    </ol>`;
}
