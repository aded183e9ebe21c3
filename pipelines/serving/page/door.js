// Talks to the server: JSON requests and the queue's events.

export async function ask(method, path, body) {
  const answer = await fetch(path, {
    method,
    headers: body === undefined ? {} : {"content-type": "application/json"},
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (answer.status === 204) return null;
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(content.error?.message ?? `the server answered ${answer.status}`);
  return content;
}

// Calls back with the list of jobs whenever it changes; the browser connects again by itself.
export function watchJobs(onJobs, onLost) {
  const source = new EventSource("/v1/jobs/events");
  source.addEventListener("jobs", (event) => onJobs(JSON.parse(event.data)));
  source.onerror = () => onLost();
}

// Lines of a pasted list, or rows of a CSV whose first row names prompt, duration_s and seed.
export function readBatch(text, durationS) {
  const rows = readCsv(text);
  const names = rows[0]?.map((name) => name.trim().toLowerCase()) ?? [];
  if (!names.includes("prompt")) {
    const lines = text.split(/\r?\n/).map((line) => line.trim()).filter(Boolean);
    return lines.map((prompt) => ({prompt, duration_s: durationS}));
  }
  const unknown = names.filter((name) => !["prompt", "duration_s", "seed"].includes(name));
  if (unknown.length) throw new Error(`unknown column: ${unknown[0]}`);
  return rows.slice(1).filter((row) => row.some((cell) => cell.trim())).map((row) => {
    const cells = Object.fromEntries(names.map((name, index) => [name, (row[index] ?? "").trim()]));
    const request = {prompt: cells.prompt, duration_s: Number(cells.duration_s || durationS)};
    if (cells.seed) request.seed = Number(cells.seed);
    return request;
  });
}

function readCsv(text) {
  const rows = [[""]];
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const c = text[i], row = rows[rows.length - 1];
    if (quoted) {
      if (c !== '"') row[row.length - 1] += c;
      else if (text[i + 1] === '"') { row[row.length - 1] += '"'; i++; }
      else quoted = false;
    } else if (c === '"') quoted = true;
    else if (c === ",") row.push("");
    else if (c === "\n") rows.push([""]);
    else if (c !== "\r") row[row.length - 1] += c;
  }
  return rows;
}
