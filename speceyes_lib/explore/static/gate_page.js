// The gate of a run in one file: decides with the arrays of replay, and shows what follows.
//
// Three parts: numbers (the same as `gating.gate_summary`; a browser test compares them), charts, and the page.
// It is one file because the page's policy names one script. Every text is set as text; the page's policy refuses markup from scripts. The state of the page is in its address
// after "#", so a link, a reload and a saved copy show the same view.

"use strict";

// ---------------------------------------------------------------- numbers

const DIGITS = { "%": 1, pp: 1, x: 2 };
const NONE = { value: NaN, low: NaN, high: NaN, n: 0, unit: "%" };

function accepts(data, score, threshold) {
  return score !== null && (data.equalPasses ? score >= threshold : score > threshold);
}

// What a setting does with each of these samples (indices), and what the run lacks for it.
function decide(data, members, scores, threshold) {
  const { ABSENT, RIGHT, FAILED } = data.codes;
  const rows = [];
  const lacks = { router: 0, draft: 0, verdict: 0, agent: 0 };
  for (const i of members) {
    const [draft, agent, score] = [data.draft[i], data.agent[i], scores[i]];
    const routed = data.routed[i] === 1;
    const drafted = !routed && data.readable[i] === 1;
    const accepted = drafted && draft !== FAILED && accepts(data, score, threshold);
    lacks.router += data.routed[i] === ABSENT;
    lacks.draft += drafted && draft === ABSENT && score === null;
    lacks.verdict += accepted && draft === ABSENT;
    lacks.agent += !accepted && agent === ABSENT;
    const decision = routed ? "routed" : draft === FAILED ? "draft_failed" : accepted ? "accepted" : "rejected";
    const [draftRight, agentRight] = [draft === RIGHT, agent === RIGHT];
    let outcome = draftRight ? "missed" : "";
    if (accepted) {
      outcome = agent === ABSENT ? "unknown" : draftRight && agentRight ? "both right" : draftRight ? "gained" : agentRight ? "lost" : "both wrong";
    }
    const [before, agentS, alone] = [data.beforeSeconds[i], data.agentSeconds[i], data.aloneSeconds[i]];
    const wall = before === null || (!accepted && agentS === null) ? NaN : before + (accepted ? 0 : agentS);
    rows.push({ i, score, drafted, accepted, decision, outcome, answer: accepted ? draft : agent, draft, agent, wall, alone: alone ?? NaN });
  }
  return { rows, lacks };
}

function shortage(data, lacks) {
  for (const [n, what] of [
    [lacks.router, `the output of the ${data.router} router is not recorded`],
    [lacks.draft, "no draft is recorded, which this setting would ask for,"],
    [lacks.verdict, "the accepted draft has no verdict"],
    [lacks.agent, "the agent's answer is not recorded"],
  ]) {
    if (n) return `${what} for ${n} sample${n > 1 ? "s" : ""}`;
  }
  return "";
}

const sum = (values) => values.reduce((a, b) => a + b, 0);

function wilson(successes, n, z) {
  const share = successes / n;
  const centre = share + z ** 2 / (2 * n);
  const spread = z * Math.sqrt((share * (1 - share)) / n + z ** 2 / (4 * n ** 2));
  const low = successes === 0 ? (n > 0 ? 0 : NaN) : (centre - spread) / (1 + z ** 2 / n);
  const high = successes === n ? (n > 0 ? 1 : NaN) : (centre + spread) / (1 + z ** 2 / n);
  return [low, high];
}

function proportion(part, n, z) {
  const [low, high] = wilson(part, n, z);
  return { value: n ? (100 * part) / n : NaN, low: 100 * low, high: 100 * high, n, unit: "%" };
}

// Sums of values by group.
function byGroup(data, rows, ...valuesOf) {
  const sums = new Map();
  for (const row of rows) {
    const group = data.group[row.i];
    if (!sums.has(group)) sums.set(group, valuesOf.map(() => 0));
    const entry = sums.get(group);
    valuesOf.forEach((valueOf, k) => (entry[k] += valueOf(row)));
  }
  return [...sums.values()];
}

// Share of right answers; where groups repeat, n is divided by their design effect.
function accuracyOf(data, rows) {
  const { RIGHT, FAILED } = data.codes;
  const rightOf = (row) => Number(row.answer === RIGHT);
  const countedOf = (row) => Number(data.protocol !== "paper" || row.answer !== FAILED);
  const [right, counted] = [sum(rows.map(rightOf)), sum(rows.map(countedOf))];
  const groups = byGroup(data, rows, rightOf, countedOf);
  let [successes, n] = [right, counted];
  if (groups.length < rows.length) {
    const share = right / counted;
    const spread = sum(groups.map(([y, m]) => (y - share * m) ** 2));
    const variance = ((groups.length / Math.max(groups.length - 1, 1)) * spread) / counted ** 2;
    const effect = variance / ((share * (1 - share)) / counted);
    const constant = right === 0 || right === counted;
    n = constant ? Math.min(counted, groups.length) : counted / (effect > 1 ? effect : 1);
    successes = right === counted ? n : share * n;
  }
  const [low, high] = wilson(successes, n, data.z);
  return { value: (100 * right) / counted, low: 100 * low, high: 100 * high, n: counted, unit: "%" };
}

// sum(top) / sum(bottom) with its linearised interval over groups.
function ratio(data, rows, topOf, bottomOf, unit, factor = 1) {
  const n = rows.length;
  const [top, bottom] = [sum(rows.map(topOf)), sum(rows.map(bottomOf))];
  if (!n || !bottom) return { value: NaN, low: NaN, high: NaN, n, unit };
  const value = top / bottom;
  const residuals = byGroup(data, rows, (row) => topOf(row) - value * bottomOf(row)).map(([e]) => e);
  const G = residuals.length;
  const reach = G < 2 ? NaN : (data.z * Math.sqrt((G / (G - 1)) * sum(residuals.map((e) => e * e)))) / bottom;
  return { value: factor * value, low: factor * (value - reach), high: factor * (value + reach), n, unit };
}

// Mean of paired gains in percentage points; where no pair differs, the reach of Agresti and Min.
function difference(data, rows, gainOf) {
  if (rows.length && rows.every((row) => gainOf(row) === 0)) {
    const reach = (100 * data.z) / (byGroup(data, rows).length + 2);
    return { value: 0, low: -reach, high: reach, n: rows.length, unit: "pp" };
  }
  return ratio(data, rows, gainOf, () => 1, "pp", 100);
}

// McNemar's exact two-sided p-value of b against c discordant pairs.
function mcnemar(b, c) {
  const n = b + c;
  if (!n) return 1;
  let logTerm = -n * Math.LN2;
  let total = 0;
  for (let k = 0; k <= Math.min(b, c); k++) {
    total += Math.exp(logTerm);
    logTerm += Math.log((n - k) / (k + 1));
  }
  return Math.min(1, 2 * total);
}

const counts = (data, row) => data.protocol !== "paper" || row.answer !== data.codes.FAILED;
const points = (data, answer) => Number(answer === data.codes.RIGHT);

function summarise(data, members, scores, threshold) {
  const { ABSENT, RIGHT, FAILED } = data.codes;
  const { rows, lacks } = decide(data, members, scores, threshold);
  const n = rows.length;
  const accepted = rows.filter((row) => row.accepted);
  const drafted = rows.filter((row) => row.drafted).length;
  const reason = shortage(data, lacks);
  const known = rows.filter((row) => counts(data, row) && row.answer !== ABSENT && row.agent !== ABSENT);
  const timed = rows.filter((row) => counts(data, row) && !Number.isNaN(row.wall));
  const [wall, alone] = [sum(rows.map((row) => row.wall)), sum(rows.map((row) => row.alone))];
  const speedup = reason ? { ...NONE, n, unit: "x" } : ratio(data, timed, (row) => row.alone, (row) => row.wall, "x");
  const shift = alone / wall - speedup.value; // failed samples cost time, and vary no interval where they do not count
  for (const end of ["value", "low", "high"]) speedup[end] += shift;
  const right = accepted.filter((row) => row.draft === RIGHT).length;
  return {
    rows,
    reason,
    n,
    errors: rows.filter((row) => !row.accepted && row.agent === FAILED).length,
    accuracy: reason ? { ...NONE, n } : accuracyOf(data, rows),
    difference: reason ? { ...NONE, n, unit: "pp" } : difference(data, known, (row) => points(data, row.answer) - points(data, row.agent)),
    accepted: proportion(accepted.length, n, data.z),
    alpha: proportion(accepted.length, drafted, data.z),
    beta: proportion(drafted, n, data.z),
    risk: lacks.verdict ? { ...NONE, n: accepted.length } : proportion(accepted.length - right, accepted.length, data.z),
    speedup,
    wall,
    alone,
    costNote: data.timed && Number.isNaN(wall + alone) ? "some samples were not timed" : data.costNote,
  };
}

// The second setting less the first one, on the same samples.
function compare(data, first, second) {
  const pairs = first.rows.map((row, k) => ({ i: row.i, a: row, b: second.rows[k] }));
  const known = pairs.filter(({ a, b }) => [a, b].every((row) => row.answer !== data.codes.ABSENT && counts(data, row)));
  const gainOf = ({ a, b }) => points(data, b.answer) - points(data, a.answer);
  const [gained, lost] = [1, -1].map((sign) => known.filter((pair) => gainOf(pair) === sign).length);
  const reason = first.reason || second.reason;
  return {
    accuracy: reason ? { ...NONE, n: first.n, unit: "pp" } : difference(data, known, gainOf),
    accepted: { ...NONE, value: second.accepted.value - first.accepted.value, n: first.n, unit: "pp" },
    risk: { ...NONE, value: second.risk.value - first.risk.value, unit: "pp" },
    speedup: { ...NONE, value: second.speedup.value - first.speedup.value, unit: "x", signed: true },
    p: reason ? NaN : mcnemar(gained, lost),
    gained,
    lost,
    moved: pairs.filter(({ a, b }) => a.accepted !== b.accepted).map(({ i }) => i),
  };
}

// As Python writes it: a tie of the exact binary value goes to the even digit.
function fixed(value, digits) {
  const text = value.toFixed(digits);
  const exact = Math.abs(value).toFixed(digits + 30);
  if (!/^50*$/.test(exact.slice(exact.length - 30))) return text;
  const down = exact.slice(0, exact.length - 30).replace(/\.$/, "");
  return Number(down.slice(-1)) % 2 ? text : (value < 0 ? "-" : "") + down;
}

// As `formatting.apart` of Python: as many digits as it takes to see that two numbers differ.
function apart(first, second, digits = 1, most = 3) {
  const texts = [fixed(first, digits), fixed(second, digits)];
  return texts[0] !== texts[1] || first === second || digits >= most ? texts : apart(first, second, digits + 1, most);
}

function number({ value, unit, signed }, of = value) {
  return (of >= 0 && (unit === "pp" || signed) ? "+" : "") + fixed(of, DIGITS[unit] ?? 3);
}

function shown(estimate, missing = "not known") {
  if (Number.isNaN(estimate.value)) return missing;
  const { unit } = estimate;
  const interval = Number.isNaN(estimate.low) ? "" : ` [${number(estimate, estimate.low)}, ${number(estimate, estimate.high)}]`;
  return `${number(estimate)}${unit === "x" ? "" : " "}${unit}${interval}`;
}

const exponential = (value) => value.toExponential(1).replace(/e([+-])(\d)$/, "e$10$2");

function scoreText(score) {
  const gap = 1 - score;
  if (score < 0 || score > 1) return String(Number(score.toPrecision(6)));
  if (gap >= 1e-6) return fixed(score, gap > 1e-3 ? 4 : 7);
  return gap ? `1 - ${exponential(gap)}` : "1 (to the last digit)";
}

const thresholdText = (threshold) => String(Number(threshold.toPrecision(6)));

// Why the gate decides so on one sample; the same sentences as `explain.reason`.
function reasonFor(data, row, answers, score, threshold) {
  const quoted = (text) => {
    const line = [...text.trim().split(/\s+/).join(" ")];
    return line.length ? ` "${line.length <= 80 ? line.join("") : line.slice(0, 79).join("") + "…"}"` : "";
  };
  const verdict = (code, missing) => (code === data.codes.ABSENT ? missing : code === data.codes.RIGHT ? "right" : "wrong");
  const [draft, agent, right] = [answers.draft, answers.agent, answers.standard].map(quoted);
  let first;
  if (row.decision === "routed") first = "The router sends this sample to the agent, so no draft is used.";
  else if (row.decision === "draft_failed") first = "The draft failed, so the agent answers.";
  else if (row.score === null) first = `The gate rejects the draft${draft}, because it has no confidence.`;
  else {
    const distance = Math.abs(row.score - threshold);
    const gap = distance >= 1e-3 ? fixed(distance, 4) : exponential(distance);
    const place = distance ? `${gap} ${row.score > threshold ? "above" : "below"}` : "exactly at";
    const verb = accepts(data, row.score, threshold) ? "accepts" : "rejects";
    first = `The gate ${verb} the draft${draft}, because its confidence ${scoreText(row.score)} (${score}) is ${place} the threshold ${thresholdText(threshold)}.`;
  }
  const second = `${right ? `The right answer is${right}. ` : ""}The draft is ${verdict(row.draft, "not judged")}, and the agent's answer${agent} is ${verdict(row.agent, "not recorded")}.`;
  const times = `Predicted: ${fixed(1000 * row.wall, 1)} ms, with the agent alone ${fixed(1000 * row.alone, 1)} ms.`;
  return [first, second, data.means[row.outcome], ...(Number.isNaN(row.wall + row.alone) ? [] : [times])].join(" ");
}

// ---------------------------------------------------------------- elements

function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function draw(name, attributes = {}, text = undefined) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// ---------------------------------------------------------------- charts

const WIDTH = 480;
const HEIGHT = 200;
const MARGIN = { left: 46, right: 12, top: 24, bottom: 36 };
const TOP = 1 - 1e-6; // surer drafts are drawn here: log-odds have no end
const X_TICKS = [0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999];
const BINS = 28;

function niceTicks(low, high, about) {
  const rough = (high - low) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) ticks.push(Number((k * step).toPrecision(12)));
  return ticks;
}

// Where thresholds are drawn: log-odds for scores within 0 and 1, otherwise as they are.
function scaleFor(values) {
  const odds = values.every((value) => value >= 0 && value <= 1);
  const clip = (value) => Math.min(TOP, Math.max(1 - TOP, value));
  const place = odds ? (value) => Math.log(clip(value) / (1 - clip(value))) : (value) => value;
  const back = odds ? (at) => 1 / (1 + Math.exp(-at)) : (at) => at;
  const places = values.length ? [place(Math.min(...values)), place(Math.max(...values))] : [-2, 2];
  const wide = Math.max(places[1] - places[0], 1e-3);
  const [low, high] = [places[0] - 0.03 * wide, places[1] + 0.03 * wide];
  const ticks = odds
    ? X_TICKS.map((t) => ({ at: place(t), label: String(t).replace(/^0/, "") })).filter(({ at }) => at >= low && at <= high)
    : niceTicks(low, high, 6).map((t) => ({ at: t, label: String(t) }));
  return { place, back, low, high, ticks: ticks.length ? ticks : [{ at: (low + high) / 2, label: thresholdText(back((low + high) / 2)) }] };
}

// A chart over the threshold. spec: title, y {low, high, ticks, label}, x (a scale), bars, band, lines, legend, marks.
function chart(spec, choose) {
  const { x, y } = spec;
  const toX = (at) => MARGIN.left + ((Math.min(x.high, Math.max(x.low, at)) - x.low) / (x.high - x.low)) * (WIDTH - MARGIN.left - MARGIN.right);
  const toY = (at) => MARGIN.top + ((y.high - at) / (y.high - y.low)) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${spec.title}; ${spec.summary}`, class: "chart" });
  for (const { at, label } of y.ticks) {
    svg.append(draw("line", { class: "grid", x1: MARGIN.left, x2: WIDTH - MARGIN.right, y1: toY(at), y2: toY(at) }));
    svg.append(draw("text", { x: MARGIN.left - 6, y: toY(at) + 4, "text-anchor": "end" }, label));
  }
  for (const { at, label } of x.ticks) {
    svg.append(draw("line", { class: "grid", x1: toX(at), x2: toX(at), y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }));
    svg.append(draw("text", { x: toX(at), y: HEIGHT - MARGIN.bottom + 14, "text-anchor": "middle" }, label));
  }
  for (const bar of spec.bars ?? []) {
    const [top, bottom] = [toY(Math.max(bar.y, 0)), toY(Math.min(bar.y, 0))];
    const rect = draw("rect", { class: bar.kind, x: toX(bar.x0) + 0.5, width: Math.max(1, toX(bar.x1) - toX(bar.x0) - 1), y: top, height: bottom - top });
    rect.append(draw("title", {}, bar.title));
    svg.append(rect);
  }
  const path = (list) => list.map(([a, b]) => `${toX(a).toFixed(1)},${toY(b).toFixed(1)}`).join(" ");
  if (spec.band) svg.append(draw("polygon", { class: "band", points: path(spec.band) }));
  for (const line of spec.lines ?? []) svg.append(draw("polyline", { class: line.kind, points: path(line.points) }));
  for (const { at, value, kind, name } of spec.marks) {
    svg.append(draw("line", { class: `threshold ${kind}`, x1: toX(at), x2: toX(at), y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }));
    svg.append(draw("text", { class: `name ${kind}`, x: toX(at) + 3, y: HEIGHT - MARGIN.bottom - 4 }, name));
    if (value !== undefined && !Number.isNaN(value)) svg.append(draw("circle", { class: `ring ${kind}`, cx: toX(at), cy: toY(value), r: 5 }));
  }
  svg.append(draw("text", { class: "title", x: MARGIN.left, y: 14 }, spec.title));
  svg.append(draw("text", { class: "axis", x: (MARGIN.left + WIDTH - MARGIN.right) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, x.label));
  svg.append(draw("text", { class: "axis", transform: `translate(11 ${(HEIGHT - MARGIN.bottom + MARGIN.top) / 2}) rotate(-90)`, "text-anchor": "middle" }, y.label));
  let right = WIDTH - MARGIN.right;
  for (const { label, kind } of (spec.legend ?? []).toReversed()) {
    svg.append(draw("text", { x: right, y: 14, "text-anchor": "end" }, label));
    right -= 6.6 * label.length + 14;
    svg.append(draw("rect", { class: kind, x: right, y: 6, width: 9, height: 9 }));
    right -= 10;
  }
  const pointed = (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * WIDTH;
    return x.low + ((at - MARGIN.left) / (WIDTH - MARGIN.left - MARGIN.right)) * (x.high - x.low);
  };
  svg.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    choose(x.back(Math.min(x.high, Math.max(x.low, pointed(event)))));
  });
  return svg;
}

function levels(values, unit) {
  const known = values.filter((value) => Number.isFinite(value));
  let [low, high] = known.length ? [Math.min(...known), Math.max(...known)] : [0, 1];
  const wide = Math.max(high - low, 1e-3 * Math.max(1, Math.abs(high)), 0.2);
  [low, high] = [low - 0.06 * wide, high + 0.08 * wide];
  return { low, high, ticks: niceTicks(low, high, 4).map((at) => ({ at, label: `${at}${unit}` })) };
}

// Drafts that reach the gate over their score: right ones upwards, wrong ones downwards, each as a share of its own n.
function histogram(data, members, scores, x, marks) {
  const gated = members.filter((i) => data.readable[i] && data.routed[i] === 0 && scores[i] !== null);
  const width = (x.high - x.low) / BINS;
  const bars = [];
  const legend = [];
  for (const [kind, sign] of [["right", 1], ["wrong", -1]]) {
    const part = gated.filter((i) => (data.draft[i] === data.codes.RIGHT) === (kind === "right"));
    const bins = new Array(BINS).fill(0);
    for (const i of part) bins[Math.min(BINS - 1, Math.max(0, Math.floor((x.place(scores[i]) - x.low) / width)))] += 1;
    bins.forEach((n, k) => {
      const [x0, x1] = [x.low + k * width, x.low + (k + 1) * width];
      const ends = `score ${thresholdText(x.back(x0))} to ${thresholdText(x.back(x1))}`;
      if (n) bars.push({ kind, x0, x1, y: (sign * 100 * n) / part.length, title: `${n} of ${part.length} ${kind} drafts, ${ends}` });
    });
    legend.push({ label: `${kind}, n=${part.length}`, kind });
  }
  const reach = Math.max(...bars.map(({ y }) => Math.abs(y)), 1) * 1.05;
  const ticks = niceTicks(-reach, reach, 5).map((at) => ({ at, label: String(Math.abs(at)) }));
  const y = { low: -reach, high: reach, ticks, label: "% of wrong | right" };
  return { title: "Drafts by score", summary: legend.map(({ label }) => label).join(", "), x, y, bars, legend, marks };
}

function curveChart(title, label, unit, points, x, marks, alone = NaN) {
  const known = points.filter(({ estimate }) => Number.isFinite(estimate.value));
  const bands = known.filter(({ estimate }) => Number.isFinite(estimate.low));
  const ends = bands.flatMap(({ estimate }) => [estimate.low, estimate.high]);
  const values = known.map(({ estimate }) => estimate.value);
  const lines = [{ kind: "curve", points: known.map(({ at, estimate }) => [at, estimate.value]) }];
  const legend = [];
  if (Number.isFinite(alone)) {
    lines.push({ kind: "alone", points: [[x.low, alone], [x.high, alone]] });
    legend.push({ label: "agent alone", kind: "alone" });
  }
  const band = [...bands.map(({ at, estimate }) => [at, estimate.low]), ...bands.toReversed().map(({ at, estimate }) => [at, estimate.high])];
  const y = { ...levels([...values, ...ends, alone], unit), label };
  const summary = values.length ? `from ${fixed(Math.min(...values), 2)} to ${fixed(Math.max(...values), 2)}; shaded: 95 % interval` : "nothing known";
  return { title, summary, x, y, lines, band, legend, marks };
}

// ---------------------------------------------------------------- the page

const ROWS = 50; // on a page of the list
const PAUSE_MS = 200; // browsers allow some 200 changes of the address in 30 seconds
const CURVE = 120; // thresholds on a curve
const COLUMNS = { id: "sample", confidence: "score", decision: "decision", draft: "draft", agent: "agent", outcome: "outcome" };
const OLD_FIELDS = { task: "split", find: "search", sort: "order", other: "pin_threshold" };
const SHOWN = { flipped: "moved" }; // a list of the explorer -> of this page, where it has another name
const SIGNS = ["✗", "✓", "✗"];

function main(data) {
  const root = document.querySelector("main");
  const { RIGHT, ABSENT } = data.codes;
  const absent = data.agent.includes(ABSENT);
  const start = { task: data.start.task, score: data.start.score, threshold: data.start.threshold, other: data.start.other, show: "all", find: "", sort: "", sample: data.start.sample, page: 0 };
  const state = { ...start };
  const searched = data.ids.map((id, i) => {
    const details = data.details[i];
    return [id, data.names[i], details?.question, ...Object.values(details?.answers ?? {})].join("\n").toLowerCase();
  });
  let part; // of the chosen task and score: members, scores, scale, stops, curve
  let first; // at the threshold
  let second; // at the other threshold; null: none
  let listed = []; // rows of the list, over all its pages
  let writing = null; // timer: the address follows a pause

  // -------------------------------------------------------------- the address

  // The fields are those of the explorer's links (`links.py`), so each opens the links of the other. Links that this page
  // wrote before have other names.
  function readAddress(fragment) {
    const given = new URLSearchParams(fragment || document.documentElement.dataset.view || "");
    const faults = [];
    const fault = (name) => faults.push(`${name} "${given.get(name)}"`);
    const next = { ...start };
    if (given.has("gate")) Object.assign(next, { task: data.tasks[0].value, other: null, sample: "" }); // it names all that is shown
    for (const [name, value] of given) {
      const [field, oldSort] = [OLD_FIELDS[name] ?? name, name === "sort" ? value.replace("sample", "id").replace("score", "confidence") : value];
      const oneOf = (part, known, read = value) => (known.includes(read) ? (next[part] = read) : fault(name));
      if (field === "split") oneOf("task", data.tasks.map((each) => each.value));
      else if (field === "score") oneOf("score", Object.keys(data.scores));
      else if (field === "sample") oneOf("sample", data.ids);
      else if (field === "search") next.find = value;
      else if (field === "order") oneOf("sort", ["", ...Object.keys(COLUMNS).flatMap((key) => [key, `-${key}`])], oldSort === "nearest" ? "" : oldSort);
      else if (field === "show") oneOf("show", filters.map(([each]) => each));
      else if (field === "list") oneOf("show", filters.map(([each]) => each), given.get("name") || (SHOWN[value] ?? value));
      else if (field === "threshold" || field === "pin_threshold") {
        const part = field === "threshold" ? field : "other";
        if (value.trim() && Number.isFinite(Number(value))) next[part] = Number(value);
        else if (name === "other" && value === "none") next.other = null;
        else fault(name);
      } else if (field === "gate" || field === "pin") value === data.run || fault(name);
      else if (field.replace("pin_", "") in data.setting) Number(value) === Number(data.setting[field.replace("pin_", "")]) || value === data.setting[field.replace("pin_", "")] || fault(name);
      else if (field === "pin_score") value === (given.get("score") ?? start.score) || fault(name);
      else if (field !== "name" || !given.has("list")) fault(name);
    }
    if (faults.some((each) => each.startsWith("pin"))) next.other = null; // a pinned setting that this page cannot show
    message.textContent = faults.length ? `The link names ${faults.join(", ")}, which this page does not have; the rest of it is shown.` : "";
    Object.assign(state, next);
  }

  function address() {
    const gate = (before, threshold) => [["score", state.score], ...Object.entries(data.setting), ["threshold", threshold]].map(([name, value]) => [before + name, value]);
    const parts = [["gate", data.run], ...gate("", state.threshold), ["split", state.task], ["sample", state.sample]];
    parts.push(["search", state.find], ["order", state.sort]);
    const list = state.show in data.outcomes ? "outcome" : state.show.includes(" ") ? "decision" : { all: "", moved: "flipped" }[state.show] ?? state.show;
    parts.push(["list", list], ["name", ["outcome", "decision"].includes(list) ? state.show : ""]);
    if (state.other !== null) parts.push(["pin", data.run], ...gate("pin_", state.other));
    return new URLSearchParams(parts.filter(([, value]) => value !== "")).toString();
  }

  function writeAddress() {
    try {
      history.replaceState(null, "", `#${address()}`);
    } catch {
      // a browser that refuses it for files still shows the view; "save with this view" keeps it
    }
  }

  // -------------------------------------------------------------- controls

  const filters = [
    ["all", "all samples"],
    ["moved", "decided differently at the two thresholds"],
    ["disagree", "draft and agent disagree"],
    ...data.decisions.flatMap((decision) => ["right", "wrong"].map((verdict) => [`${decision} ${verdict}`, `${decision.replace("_", " ")}, draft ${verdict}`])),
    ...Object.entries(data.outcomes).map(([name, meaning]) => [name, `${name}: ${meaning}`]),
  ];
  const options = (pairs) => pairs.map(([value, label]) => make("option", { value }, label));
  const task = make("select", { onchange: () => update({ task: task.value }) }, ...options(data.tasks.map(({ value, label }) => [value, label])));
  const score = make("select", { onchange: () => update({ score: score.value }) }, ...options(Object.entries(data.scoreLabels).map(([value, label]) => [value, value === label ? value : `${value}: ${label}`])));
  const exact = make("input", { type: "number", step: "any", onchange: () => typed(exact, "threshold") });
  const other = make("input", { type: "number", step: "any", placeholder: "none", onchange: () => (other.value === "" && !other.validity.badInput ? update({ other: null }) : typed(other, "other")) });
  const slider = make("input", { type: "range", min: 0, step: 1, "aria-label": "threshold", oninput: () => update({ threshold: part.stops[slider.valueAsNumber] }) });
  slider.addEventListener("keydown", (event) => {
    const by = { PageUp: 10, PageDown: -10 }[event.key];
    if (!by) return;
    event.preventDefault();
    update({ threshold: part.stops[Math.min(part.stops.length - 1, Math.max(0, slider.valueAsNumber + by))] });
  });
  const button = (label, act, title = "") => make("button", { type: "button", title, onclick: act }, label);
  const message = make("p", { class: "message", role: "status" });
  const clip = make("textarea", { class: "clip", rows: 6, readonly: true, "aria-label": "text to copy", hidden: true });
  const stop = button("stop comparing", () => update({ other: null }));

  function typed(field, name) {
    if (!Number.isFinite(field.valueAsNumber)) {
      message.textContent = `"${field.value}" is not a number; the ${name === "other" ? "second " : ""}threshold stays as it was.`;
      field.value = state[name] ?? "";
    } else update({ [name]: field.valueAsNumber });
  }

  async function copy(text, what) {
    clip.value = text;
    try {
      await navigator.clipboard.writeText(text);
      clip.hidden = true;
      message.textContent = `Copied: ${what}.`;
    } catch {
      clip.hidden = false;
      clip.focus();
      clip.select();
      message.textContent = `Press Ctrl+C to copy ${what}.`;
    }
  }

  // This file with the present view: the copy opens at it, wherever it is sent.
  function save() {
    const whole = document.documentElement.cloneNode(true);
    whole.dataset.view = address();
    delete whole.dataset.ready;
    whole.querySelector("main").replaceChildren();
    const link = make("a", { href: URL.createObjectURL(new Blob([`<!doctype html>\n${whole.outerHTML}`], { type: "text/html" })), download: `gate_${data.run}.html` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    message.textContent = "Saved a copy of this file that opens at this view.";
  }

  function origin() {
    return [`run ${data.run}`, ...data.origin, `score ${state.score}`].join(", ");
  }

  function asText() {
    const named = data.tasks.find(({ value }) => value === state.task).label;
    const line = (threshold, of) => [
      `threshold ${thresholdText(threshold)}: accuracy ${shown(of.accuracy)} (n=${of.accuracy.n}), accepted ${shown(of.accepted)} (n=${of.accepted.n}),`,
      `wrong among the accepted ${shown(of.risk, "none accepted")} (n=${of.risk.n}), predicted speedup ${shown(of.speedup)}`,
    ].join(" ");
    const lines = [`The gate on ${named} (${data.protocol === "paper" ? "failed samples left out" : "failed samples count as wrong"})`, line(state.threshold, first)];
    if (second) {
      const change = compare(data, first, second);
      lines.push(line(state.other, second), `second less first: ${changeText(change)}`);
    }
    return [...lines, `[${origin()}, threshold ${state.threshold}${second ? ` and ${state.other}` : ""}]`].join("\n");
  }

  function changeText(change) {
    const p = Number.isNaN(change.p) ? "" : `, McNemar ${change.p >= 0.001 ? `p=${fixed(change.p, 3)}` : "p<0.001"} (${change.gained} against ${change.lost})`;
    return `accuracy ${shown(change.accuracy)}${p}; ${change.moved.length} samples decided differently`;
  }

  // -------------------------------------------------------------- what follows from the state

  function choosePart() {
    const { members: inTask } = data.tasks.find(({ value }) => value === state.task);
    const members = data.ids.map((_, i) => i).filter((i) => inTask[data.task[i]]);
    const scores = data.scores[state.score];
    const gated = members.filter((i) => data.readable[i] && data.routed[i] === 0 && scores[i] !== null).map((i) => scores[i]);
    const distinct = [...new Set(gated)].sort((a, b) => a - b);
    const x = { ...scaleFor(distinct), label: `threshold of ${state.score}` };
    const lowest = distinct.length && distinct[0] >= 0 && distinct.at(-1) <= 1 ? 0 : (distinct[0] ?? 0) - 1;
    const stops = [...new Set([lowest, ...distinct])];
    const step = Math.max(1, stops.length / CURVE);
    const at = new Set([0, stops.length - 1]);
    for (let k = 0; k < stops.length; k += step) at.add(Math.floor(k));
    const curve = [...at].sort((a, b) => a - b).map((k) => {
      const { rows, ...summary } = summarise(data, members, scores, stops[k]);
      return { at: x.place(stops[k]), ...summary };
    });
    part = { key: `${state.task} ${state.score}`, members, scores, x, stops, curve };
  }

  function update(changes = {}) {
    Object.assign(state, changes);
    if (part?.key !== `${state.task} ${state.score}`) choosePart();
    first = summarise(data, part.members, part.scores, state.threshold);
    second = state.other === null ? null : summarise(data, part.members, part.scores, state.other);
    clearTimeout(writing);
    writing = setTimeout(writeAddress, PAUSE_MS);
    [task.value, score.value, exact.value, other.value] = [state.task, state.score, state.threshold, state.other ?? ""];
    slider.max = part.stops.length - 1;
    slider.value = Math.max(0, part.stops.findLastIndex((stopAt) => stopAt <= state.threshold));
    slider.setAttribute("aria-valuetext", thresholdText(state.threshold));
    stop.hidden = second === null;
    showNumbers();
    showCharts();
    showTables();
    showList();
    showSample();
  }

  // -------------------------------------------------------------- numbers

  const cards = make("div", { class: "cards" });
  const under = make("p", { class: "note" });
  const versus = make("div", { class: "versus" });

  function card(name, estimate, note, missing) {
    const value = make("div", { class: "value" }, Number.isNaN(estimate.value) ? missing : shown(estimate).split(" [")[0]);
    const ends = Number.isNaN(estimate.low) ? "" : `[${shown(estimate).split(" [")[1]} `;
    const made = make("div", { class: "card" }, make("div", { class: "name" }, name), value, make("div", { class: "note" }, `${ends}n=${estimate.n}`), make("div", { class: "note" }, note));
    Object.assign(made.dataset, { name, value: estimate.value, low: estimate.low, high: estimate.high, n: estimate.n });
    return made;
  }

  function showNumbers() {
    const of = first;
    const partly = of.difference.n === of.accuracy.n ? "" : `, where its answer is recorded (n=${of.difference.n})`;
    const alone = Number.isNaN(of.difference.value) ? of.reason : `${shown(of.difference)} against the agent alone${partly}`;
    const seconds = Number.isNaN(of.speedup.value) ? "" : apart(of.wall, of.alone).map((text) => `${text} s`).join(" against ");
    cards.replaceChildren(
      card("accuracy", of.accuracy, alone, "not known"),
      card("predicted speedup", of.speedup, seconds, data.timed ? "not known" : "not timed"),
      card("coverage (accepted)", of.accepted, `alpha ${fixed(of.alpha.value / 100, 3)} of the ${fixed(of.beta.value / 100, 3)} that beta drafts`, "none"),
      card("selective risk", of.risk, "wrong among the accepted", of.accepted.value ? "not known" : "none accepted"),
    );
    const failed = `judged ${data.protocol}: failed samples ${data.protocol === "paper" ? "are left out" : "count as wrong"} (${of.errors} of ${of.n})`;
    under.textContent = [failed, ...(of.costNote ? [of.costNote] : []), "intervals: 95 %"].join(" · ");
    if (!second) return versus.replaceChildren();
    const change = compare(data, first, second);
    const rows = [["accuracy", "accuracy"], ["accepted", "coverage (accepted)"], ["risk", "selective risk"], ["speedup", "predicted speedup"]];
    versus.replaceChildren(
      make("table", {},
        make("thead", {}, make("tr", {}, ...["", `A: threshold ${thresholdText(state.threshold)}`, `B: threshold ${thresholdText(state.other)}`, "B less A"].map((text) => make("th", { scope: "col" }, text)))),
        make("tbody", {}, ...rows.map(([name, label]) => make("tr", { "data-name": name }, make("th", { scope: "row" }, label), ...[first, second, change].map((of) => make("td", {}, shown(of[name])))))),
      ),
      make("p", {}, `B less A: ${changeText(change)}. `, button("list them", () => update({ show: "moved" }))),
    );
  }

  // -------------------------------------------------------------- charts, decisions, ledger

  const charts = make("div", { class: "charts" });

  function showCharts() {
    const { x, curve } = part;
    const marks = (name) => [
      { at: x.place(state.threshold), value: first[name]?.value, kind: "a", name: second ? "A" : "" },
      ...(second ? [{ at: x.place(state.other), value: second[name]?.value, kind: "b", name: "B" }] : []),
    ];
    const of = (name) => curve.map((point) => ({ at: point.at, estimate: point[name] }));
    const choose = (threshold) => update({ threshold });
    const agent = absent ? NaN : curve.at(-1).accuracy.value - curve.at(-1).difference.value;
    const accuracy = curve.filter((point) => Number.isFinite(point.accuracy.value)).length > 1
      ? curveChart("Accuracy", "%", "", of("accuracy"), x, marks("accuracy"), agent)
      : curveChart("Wrong among the accepted", "%", "", of("risk"), x, marks("risk"));
    const specs = [histogram(data, part.members, part.scores, x, marks("")), accuracy, curveChart("Accepted", "%", "", of("accepted"), x, marks("accepted"))];
    if (curve.some((point) => Number.isFinite(point.speedup.value))) specs.push(curveChart("Predicted speedup", "times", "", of("speedup"), x, marks("speedup")));
    const gaps = specs.length < 4 ? [make("p", { class: "missing" }, data.timed ? "The run was timed in part: no speedup can be shown." : "Nothing was timed: no speedup can be shown.")] : [];
    charts.replaceChildren(...specs.map((spec) => chart(spec, choose)), ...gaps);
  }

  const cells = new Map(); // filter -> button
  const cell = (filter) => {
    const made = button("", () => update({ show: filter }), "list these samples");
    cells.set(filter, made);
    return made;
  };
  const decisions = make("table", {},
    make("thead", {}, make("tr", {}, ...["decision", "draft right", "draft not right"].map((text) => make("th", { scope: "col" }, text)))),
    make("tbody", {}, ...data.decisions.map((decision) => make("tr", {}, make("th", { scope: "row" }, decision.replace("_", " ")), ...["right", "wrong"].map((verdict) => make("td", {}, cell(`${decision} ${verdict}`)))))),
  );
  const saved = new Map(); // outcome -> cell of its seconds
  const ledger = make("table", {},
    make("thead", {}, make("tr", {}, ...["outcome", "samples", "seconds saved", "what it is"].map((text) => make("th", { scope: "col" }, text)))),
    make("tbody", {}, ...Object.entries(data.outcomes).map(([name, meaning]) => {
      saved.set(name, make("td", { class: "number" }));
      return make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, cell(name)), saved.get(name), make("td", {}, meaning));
    })),
  );

  function showTables() {
    for (const [filter, made] of cells) {
      const rows = first.rows.filter((row) => holds(filter, row));
      made.textContent = rows.length;
      made.disabled = !rows.length;
      made.setAttribute("aria-pressed", state.show === filter);
      made.setAttribute("aria-label", `${rows.length}: ${filters.find(([value]) => value === filter)[1]}`);
      const gain = sum(rows.map((row) => row.alone - row.wall));
      if (saved.has(filter)) saved.get(filter).textContent = rows.length && Number.isFinite(gain) ? `${gain >= 0 ? "+" : ""}${fixed(gain, 2)}` : "–";
    }
  }

  // -------------------------------------------------------------- the list

  const show = make("select", { onchange: () => update({ show: show.value }) }, ...options(filters));
  const find = make("input", { type: "search", placeholder: "words in ids, questions, answers", oninput: () => update({ find: find.value }) });
  const caption = make("p", { class: "note", role: "status" });
  const heads = Object.entries(COLUMNS).map(([name, title]) => {
    const made = button(title, () => update({ sort: state.sort === name ? `-${name}` : state.sort === `-${name}` ? "" : name, sample: "" }), "sort");
    return make("th", { scope: "col", "data-name": name }, made);
  });
  const body = make("tbody");
  const frame = make("div", { class: "frame", tabindex: 0, role: "group", "aria-label": "samples; arrow keys choose, page keys turn pages" }, make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body));
  const back = button("previous page", () => turn(-1));
  const on = button("next page", () => turn(1));
  const pageOf = make("span", { class: "note" });

  function holds(filter, row) {
    const right = row.draft === RIGHT;
    if (filter === "all") return true;
    if (filter === "disagree") return row.agent !== ABSENT && right !== (row.agent === RIGHT);
    if (filter in data.outcomes) return row.outcome === filter;
    const [decision, verdict] = filter.split(" ");
    return row.decision === decision && right === (verdict === "right");
  }

  function rowsOf() {
    const words = state.find.toLowerCase().split(/\s+/).filter(Boolean);
    const moved = state.show === "moved" ? new Set(second ? compare(data, first, second).moved : []) : null;
    const rows = first.rows.filter((row) => (moved ? moved.has(row.i) : holds(state.show, row)) && words.every((word) => searched[row.i].includes(word)));
    const { place } = part.x;
    const distance = (row) => (row.score === null ? Infinity : Math.abs(place(row.score) - place(state.threshold)));
    const keys = {
      "": distance,
      id: (row) => row.i,
      confidence: (row) => row.score ?? Infinity,
      decision: (row) => row.decision,
      draft: (row) => row.draft,
      agent: (row) => row.agent,
      outcome: (row) => row.outcome,
    };
    const keyOf = keys[state.sort.replace(/^-/, "")];
    const sign = state.sort.startsWith("-") ? -1 : 1;
    const order = rows.map((row) => [keyOf(row), row]);
    order.sort(([a, p], [b, q]) => (a < b ? -sign : a > b ? sign : p.i - q.i));
    return order.map(([, row]) => row);
  }

  function turn(by) {
    const page = state.page + by;
    if (page >= 0 && page * ROWS < listed.length) update({ sample: data.ids[listed[page * ROWS].i] });
  }

  function showList() {
    [show.value, find.value] = [state.show, find === document.activeElement ? find.value : state.find];
    listed = rowsOf();
    const at = listed.findIndex((row) => data.ids[row.i] === state.sample);
    if (at < 0) state.sample = listed.length ? data.ids[listed[0].i] : "";
    state.page = Math.floor(Math.max(at, 0) / ROWS);
    const rows = listed.slice(state.page * ROWS, (state.page + 1) * ROWS);
    for (const head of heads) {
      const sorted = state.sort.replace(/^-/, "") === head.dataset.name;
      head.setAttribute("aria-sort", !sorted ? "none" : state.sort.startsWith("-") ? "descending" : "ascending");
    }
    const verdict = (code) => make("td", { class: `verdict ${code === RIGHT ? "right" : code === ABSENT ? "" : "wrong"}` }, SIGNS[code] ?? "–");
    body.replaceChildren(...rows.map((row) => make("tr", { "data-id": data.ids[row.i], "aria-current": String(data.ids[row.i] === state.sample), onclick: () => update({ sample: data.ids[row.i] }) },
      make("td", { title: data.ids[row.i] }, data.names[row.i]),
      make("td", { class: "number" }, row.score === null ? "none" : scoreText(row.score)),
      make("td", {}, row.decision.replace("_", " ")),
      verdict(row.draft),
      verdict(row.agent),
      make("td", {}, row.outcome),
    )));
    const order = state.sort ? "" : ", nearest to the threshold first";
    caption.textContent = `${filters.find(([value]) => value === state.show)[1]}${state.find ? `, with "${state.find}"` : ""}: ${listed.length} of ${first.n}${order}`;
    const pages = Math.max(1, Math.ceil(listed.length / ROWS));
    pageOf.textContent = `page ${state.page + 1} of ${pages}`;
    [back.disabled, on.disabled] = [state.page === 0, state.page + 1 >= pages];
    const chosen = body.querySelector('[aria-current="true"]');
    if (!chosen) return;
    const [top, height] = [chosen.offsetTop, chosen.offsetHeight];
    const head = heads[0].offsetHeight;
    if (top < frame.scrollTop + head) frame.scrollTop = top - head;
    else if (top + height > frame.scrollTop + frame.clientHeight) frame.scrollTop = top + height - frame.clientHeight;
  }

  frame.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== frame) return;
    const here = listed.findIndex((row) => data.ids[row.i] === state.sample);
    const next = { ArrowDown: here + 1, j: here + 1, ArrowUp: here - 1, k: here - 1, Home: 0, End: listed.length - 1 }[event.key];
    const by = { PageDown: 1, PageUp: -1 }[event.key];
    if (next === undefined && !by) return;
    event.preventDefault();
    if (by) turn(by);
    else if (listed[next]) update({ sample: data.ids[listed[next].i] });
  });

  // -------------------------------------------------------------- one sample

  const why = make("p", { class: "why" });
  const copyWhy = button("copy this sentence", () => copy(`${why.textContent} [${origin()}, threshold ${state.threshold}, sample ${state.sample}]`, "why the gate decides so, and where it comes from"));
  const full = make("div", { class: "full" });
  const sample = make("section", { class: "sample", "aria-label": "sample" }, make("h2", {}, "Sample"), why, copyWhy, full);
  let open = null; // index of the sample that is shown

  function showSample() {
    const i = data.ids.indexOf(state.sample);
    sample.hidden = i < 0;
    if (i < 0) return;
    const row = first.rows.find((each) => each.i === i);
    const answers = data.details[i]?.answers ?? { draft: "", agent: "", standard: "" };
    why.textContent = reasonFor(data, row, answers, state.score, state.threshold);
    if (open === i) return;
    open = i;
    full.replaceChildren(...inFull(data, i));
  }

  // -------------------------------------------------------------- all of it

  const label = (text, control) => make("label", {}, make("span", {}, text), control);
  root.append(
    make("header", {},
      make("h1", {}, `Gate of run ${data.run}`),
      make("p", { class: "note" }, [`${data.ids.length} samples`, ...data.origin].join(" · ")),
    ),
    ...data.notes.map((note) => make("p", { class: "message" }, note)),
    make("div", { class: "controls" },
      label("task", task), label("score", score), label("threshold", exact), make("label", { class: "wide" }, make("span", {}, "move"), slider),
      button("operating point", () => update({ threshold: data.operatingPoint })),
      label("compare with", other), button("pin", () => update({ other: state.threshold }), "keep this threshold as B, then move A"), stop,
    ),
    make("div", { class: "controls" },
      button("copy as text", () => copy(asText(), "the numbers as text")),
      button("copy link", () => copy(`${location.href.split("#")[0]}#${address()}`, "a link to this view of this file")),
      button("save with this view", save, "a copy of this file that opens at this view, to send"),
      button("print", () => print()),
    ),
    message, clip,
    cards, under, versus,
    make("div", { class: "halves" },
      make("div", {}, charts, make("div", { class: "tables" }, make("section", {}, make("h2", {}, "What became of the drafts"), decisions), make("section", {}, make("h2", {}, "Against the agent alone"), ledger))),
      make("div", { class: "samples" },
        make("section", { class: "list" }, make("h2", {}, "Samples"), make("div", { class: "controls" }, label("show", show), label("find", find)), caption, frame, make("div", { class: "controls" }, back, on, pageOf)),
        sample,
      ),
    ),
  );
  addEventListener("hashchange", (event) => {
    readAddress(new URL(event.newURL).hash.slice(1));
    update();
  });
  readAddress(location.hash.slice(1));
  update();
  document.documentElement.dataset.ready = "true";
}

// The parts of a sample that no setting changes.
function inFull(data, i) {
  const details = data.details[i];
  if (!details) return [make("p", { class: "missing" }, "This sample is not in the file in full; open the run in the explorer to read it.")];
  const section = (title, ...children) => make("section", {}, make("h3", {}, title), ...children);
  const written = (text, kind = "") => make("pre", { class: kind }, text);
  const choices = details.options.map(([letter, text, right]) => make("li", { class: right ? "right" : "" }, `${letter}. ${text}${right ? " ✓" : ""}`));
  const parts = [make("p", { class: "question" }, make("b", {}, data.names[i]), " ", details.question)];
  parts.push(choices.length ? make("ul", { class: "options" }, ...choices) : details.standard ? make("p", {}, "right: ", make("b", {}, details.standard)) : null);
  if (details.picture === null) parts.push(make("p", { class: "missing" }, details.pictureNote || "No picture is recorded."));
  else {
    const picture = make("div", { class: "picture" }, make("img", { src: data.pictures[details.picture], alt: details.pictureNote }));
    for (const { kind, label, box } of details.boxes) {
      const framed = make("div", { class: `box ${kind}`, title: label });
      const [x1, y1, x2, y2] = box.map((v) => 100 * v);
      Object.assign(framed.style, { left: `${x1}%`, top: `${y1}%`, width: `${x2 - x1}%`, height: `${y2 - y1}%` });
      picture.append(framed);
    }
    const boxes = details.boxes.map(({ kind, label }) => `${kind === "target" ? "green" : "orange"}: ${label}`);
    parts.push(make("figure", {}, picture, make("figcaption", { class: "note" }, [details.pictureNote, ...boxes].join("; "))));
  }
  parts.push(section("Draft, token by token", ...tokens(details)));
  parts.push(section("Verdicts", details.verdicts.length
    ? make("table", {}, make("thead", {}, make("tr", {}, ...["answer of", "answer", "verdict", "by"].map((text) => make("th", { scope: "col" }, text)))),
        make("tbody", {}, ...details.verdicts.map((v) => make("tr", {}, make("th", { scope: "row" }, v.source), make("td", {}, v.answer || "none"), make("td", { class: `verdict ${v.verdict === "right" ? "right" : "wrong"}` }, v.verdict), make("td", {}, v.by)))))
    : make("p", {}, "Not judged.")));
  parts.push(section("The agent, turn by turn",
    ...details.routers.map(([name, text]) => make("p", {}, `${name}: would a tool help? "${text}"`)),
    ...details.turns.map((turn) => make("div", { class: "turn" },
      make("p", { class: "note" }, turn.head), written(turn.text || "nothing"),
      turn.call && make("p", {}, "tool call: ", make("code", {}, turn.call)),
      turn.result && written(`tool result: ${turn.result}`, "tool"),
      turn.error && make("p", { class: "failure" }, turn.error))),
    details.agentNote && make("p", {}, details.agentNote),
    details.failure && make("p", { class: "failure" }, details.failure),
    details.answers.agent ? make("p", {}, "answer: ", make("b", {}, details.answers.agent)) : null));
  return parts.filter(Boolean);
}

function tokens(details) {
  if (!details.tokens.length) return [make("p", { class: "missing" }, [details.tokenNote, details.answers.draft && `Draft: ${details.answers.draft}`].filter(Boolean).join(" "))];
  const note = make("p", { class: "note", role: "status" });
  const strip = make("div", { class: "tokens" });
  const choose = (k) => {
    [...strip.children].forEach((made, at) => made.setAttribute("aria-pressed", at === k));
    const { title, others } = details.tokens[k];
    note.textContent = `${title}: ${others.map(([text, probability]) => `${text} ${probability}`).join(", ")}`;
  };
  details.tokens.forEach((token, k) => {
    const made = make("button", { type: "button", class: token.decides ? "token decides" : "token", onclick: () => choose(k) }, make("span", {}, token.text), make("small", {}, token.separability));
    Object.assign(made.style, { background: token.color, color: token.ink });
    strip.append(made);
  });
  choose(Math.max(0, details.tokens.findIndex((token) => token.decides)));
  return [strip, note];
}

async function begin() {
  const place = document.getElementById("data");
  const bytes = Uint8Array.from(atob(place.textContent), (character) => character.charCodeAt(0));
  const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  main(JSON.parse(await new Response(unpacked).text()));
}

begin().catch((error) => {
  document.querySelector("main").append(make("p", { class: "message" }, `This page could not be shown (${error}). It needs a browser of 2023 or later, and an undamaged file.`));
});
