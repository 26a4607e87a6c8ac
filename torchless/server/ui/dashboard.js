// The dashboard: reads /metrics once a second and shows the last five minutes as pictures.

import { ServerError, ask } from "./api.js";
import { bars, lines, rows, shares, short } from "./charts.js";
import { element } from "./markdown.js";
import { Reading, parseMetrics, quantile } from "./metrics.js";
import { change, settings } from "./settings.js";

const $ = (id) => document.getElementById(id);
const PERIOD_MS = 1000;
const NUM_READINGS = 300;
const WINDOW = 60; // readings that distributions are made of, and the least that a line has room for

let readings = []; // of all samples: {samples, at}
let isPaused = false;
let live = []; // what each request is at, by model

const MOST_ROWS = 16;
const tiles = {};

function tile(id, title, names = []) {
  const legend = element("p", names.map((name, number) => element("span", [name], `legend series-${number}`)), "legends");
  const made = { figure: element("p", [], "figure"), picture: element("div", [], "picture"), note: element("p", [], "muted note") };
  const node = element("section", [element("h2", [title]), made.figure, made.picture, legend, made.note], "tile");
  node.id = id;
  tiles[id] = made;
  $("tiles").append(node);
}

function show(id, figure, picture, note = "") {
  tiles[id].figure.textContent = figure;
  tiles[id].picture.replaceChildren(picture);
  tiles[id].note.textContent = note;
}

function update() {
  const model = $("model").value;
  const several = readings.map(({ samples, at }) => new Reading(samples, model, at));
  const now = several.at(-1);
  const before = several.at(-2) ?? now;
  const earlier = several.at(-Math.min(WINDOW, several.length));
  const over = (measure) => several.map((reading, index) => (index ? measure(reading, several[index - 1]) : null));
  const plot = (description, series, unit) => lines(description, series, Math.max(WINDOW, several.length), unit);

  const generated = now.rate("generated_tokens_total", before);
  show(
    "speed",
    `${short(generated)} tok/s`,
    plot(`Tokens in each second, now ${short(generated)}`, [
      { name: "written", values: over((reading, last) => reading.rate("generated_tokens_total", last)) },
      { name: "read", values: over((reading, last) => reading.rate("prompt_tokens_total", last)) },
    ], "tok/s"),
    `${short(now.get("generated_tokens_total"))} tokens written and ${short(now.get("prompt_tokens_total"))} read since the start`,
  );

  const running = now.get("sequences_running");
  const waiting = now.get("sequences_waiting");
  show(
    "queue",
    `${running} under way, ${waiting} waiting`,
    plot(`Sequences: ${running} under way, ${waiting} waiting`, [
      { name: "under way", values: several.map((reading) => reading.get("sequences_running")) },
      { name: "waiting", values: several.map((reading) => reading.get("sequences_waiting")) },
    ]),
    `${now.get("requests_finished_total")} finished, ${now.get("requests_cancelled_total")} given up, ${now.get("preemptions_total")} preempted`,
  );

  const numPages = now.get("kv_pages") || 1;
  const used = now.get("kv_pages_in_use");
  const kept = Math.max(0, now.get("kv_pages_kept"));
  show(
    "pages",
    `${used} of ${now.get("kv_pages")} pages`,
    shares(`Pages of the cache: ${used} in use, ${kept} kept for later, of ${now.get("kv_pages")}`, [
      { name: "in use", share: used / numPages },
      { name: "kept", share: Math.min(kept / numPages, 1 - used / numPages) },
    ]),
    `${((100 * used) / numPages).toFixed(0)} % in use${kept ? `, ${((100 * kept) / numPages).toFixed(0)} % kept for prompts that begin alike` : ""}`,
  );

  const batch = now.buckets("batch_sequences", earlier);
  const numSteps = batch.reduce((sum, { count }) => sum + count, 0);
  show(
    "batch",
    `${short(mean(now, earlier, "batch_sequences"))} in a step`,
    bars(`Sequences in a step, over ${numSteps} steps of the last minute`, batch.slice(0, 8).map(({ bound, count }) => ({ name: bound === Infinity ? "more" : `≤${bound}`, value: count }))),
    `steps of the last minute by their number of sequences; a step takes ${milliseconds(mean(now, earlier, "step_seconds"))}`,
  );

  const cached = now.get("cached_tokens_total");
  const prompt = now.get("prompt_tokens_total");
  const share = prompt ? cached / prompt : 0;
  show(
    "cache",
    now.has("cached_tokens_total") ? `${(100 * share).toFixed(0)} % of prompt tokens` : "no prefix cache",
    plot("Share of prompt tokens that were found in the cache, in percent", [
      { name: "found", values: over((reading, last) => hitShare(reading, last)) },
    ], "%"),
    `${short(cached)} of ${short(prompt)} tokens did not have to be computed`,
  );

  const first = now.buckets("time_to_first_token_seconds", earlier);
  const between = now.buckets("time_between_tokens_seconds", earlier);
  const times = [
    ["first token, half below", quantile(first, 0.5)],
    ["first token, 95 % below", quantile(first, 0.95)],
    ["between tokens, half below", quantile(between, 0.5)],
    ["between tokens, 95 % below", quantile(between, 0.95)],
  ];
  show(
    "latency",
    `${milliseconds(times[0][1])} to the first token`,
    element("table", times.map(([name, value]) => element("tr", [element("th", [name]), element("td", [milliseconds(value)])]))),
    "of the last minute, from histograms",
  );

  const drafted = now.get("drafted_tokens_total");
  const right = now.get("drafted_tokens_kept_total");
  show(
    "drafts",
    drafted ? `${((100 * right) / drafted).toFixed(0)} % right` : "nothing drafted",
    plot("Tokens that were drafted and tokens that were right, in each second", [
      { name: "drafted", values: over((reading, last) => reading.rate("drafted_tokens_total", last)) },
      { name: "right", values: over((reading, last) => reading.rate("drafted_tokens_kept_total", last)) },
    ], "tok/s"),
    `${short(right)} of ${short(drafted)} drafted tokens were right`,
  );

  show(
    "calls",
    `${now.get("http_requests_open")} open`,
    plot("Calls over HTTP that are open", [
      { name: "open", values: several.map((reading) => reading.get("http_requests_open")) },
    ]),
    `${short(now.get("http_requests_total"))} calls have ended`,
  );
}

/** What each request is at: the prompt's tokens found in the cache, computed and still to come, and the answer's. */
function showLive() {
  const model = $("model").value;
  const chosen = live.filter((found) => !model || found.model === model);
  const all = chosen.flatMap(({ sequences }) => sequences);
  const shown = all.slice(0, MOST_ROWS);
  const items = shown.map((sequence) => {
    const prompt = Math.min(sequence.num_computed_tokens, sequence.num_prompt_tokens);
    const cached = Math.min(sequence.num_cached_tokens, prompt);
    return {
      label: sequence.is_running ? `${sequence.num_generated_tokens} · ${sequence.seconds.toFixed(0)} s` : "waits",
      most: sequence.max_tokens,
      parts: [
        { kind: "cached", value: cached },
        { kind: "prompt", value: prompt - cached },
        { kind: "missing", value: sequence.num_prompt_tokens - prompt },
        { kind: "answer", value: sequence.num_generated_tokens },
      ],
    };
  });
  const numTokens = all.reduce((sum, sequence) => sum + sequence.num_computed_tokens, 0);
  const numWaiting = all.filter((sequence) => !sequence.is_running).length;
  show(
    "live",
    all.length - numWaiting === 1 ? "1 request" : `${all.length - numWaiting} requests`,
    rows(`Requests under way: ${all.length - numWaiting}, waiting: ${numWaiting}, together ${numTokens} tokens`, items),
    all.length > shown.length ? `and ${all.length - shown.length} more` : `a line is a request; together ${short(numTokens)} tokens in the cache`,
  );
}

function hitShare(reading, last) {
  const prompt = reading.get("prompt_tokens_total") - last.get("prompt_tokens_total");
  const cached = reading.get("cached_tokens_total") - last.get("cached_tokens_total");
  return prompt > 0 ? (100 * Math.max(0, cached)) / prompt : null;
}

function mean(now, earlier, name) {
  const count = now.get(`${name}_count`) - (earlier === now ? 0 : earlier.get(`${name}_count`));
  const sum = now.get(`${name}_sum`) - (earlier === now ? 0 : earlier.get(`${name}_sum`));
  return count > 0 ? sum / count : 0;
}

function milliseconds(seconds) {
  if (seconds === null) return "–";
  return seconds < 1 ? `${short(seconds * 1000)} ms` : `${short(seconds)} s`;
}

function showModels(samples) {
  const names = [...new Set(samples.map(({ labels }) => labels.model).filter(Boolean))].sort();
  const chosen = $("model").value;
  if ([...$("model").options].slice(1).map((option) => option.value).join("\n") === names.join("\n")) return;
  const options = names.map((name) => Object.assign(element("option", [name]), { value: name }));
  $("model").replaceChildren(Object.assign(element("option", ["All models"]), { value: "" }), ...options);
  $("model").value = names.includes(chosen) ? chosen : "";
}

async function read() {
  if (!isPaused && !document.hidden) {
    try {
      const text = await (await ask("/metrics")).text();
      const samples = parseMetrics(text);
      readings.push({ samples, at: performance.now() });
      readings = readings.slice(-NUM_READINGS);
      showModels(samples);
      live = (await (await ask("/dashboard/batch")).json()).models;
      update();
      showLive();
      $("problem").hidden = $("key-form").hidden = true;
    } catch (error) {
      if (!(error instanceof ServerError)) throw error;
      $("problem").textContent = error.message;
      $("problem").hidden = false;
      $("key-form").hidden = error.status !== 401;
    }
  }
  setTimeout(read, PERIOD_MS);
}

tile("speed", "Speed", ["written", "read"]);
tile("live", "Live batch", ["cached", "prompt", "to be read", "answer"]);
tile("queue", "Sequences", ["under way", "waiting"]);
tile("batch", "Batch");
tile("pages", "Cache pages", ["in use", "kept"]);
tile("cache", "Found in the cache", ["share of prompt tokens"]);
tile("latency", "Latency");
tile("drafts", "Drafting", ["drafted", "right"]);
tile("calls", "HTTP", ["open calls"]);
$("model").addEventListener("change", () => {
  if (!readings.length) return;
  update();
  showLive();
});
$("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  $("pause").textContent = isPaused ? "Go on" : "Pause";
  $("pause").setAttribute("aria-pressed", String(isPaused));
});
$("key").value = settings.apiKey;
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  change({ apiKey: $("key").value });
});
read();
