// The status page, live: what the service tells once a second, drawn.
//
// Rules:
// - The tables hold what the page held when it came, and are kept up to date; the drawing and the
//   graphs show the same for the eye.
// - The service counts upwards, so whatever happened "now" is the difference of two looks. If a
//   number got smaller the broker is a new one, and everything begins anew.
// - Nobody is asked while nobody looks: a hidden page rests.

const EVERY_MS = 1000;
const KEPT = 121; // Looks: two minutes.
const SPAN = 10; // Looks that a rate or a latency is taken over: quiet, and still soon.
const GONE_MS = 5000; // A replica that left is shown for so long.
const SVG = "http://www.w3.org/2000/svg";

const live = document.querySelector(".live");
const drawing = document.querySelector(".drawing");
const graphs = document.querySelector(".graphs");
const stage = drawing.querySelector("svg");
const [models, replicas] = [...document.querySelectorAll("table tbody")];
const source = document.querySelector("a.source").href;
const uptime = document.querySelector(".uptime");

let looks = []; // {at, status}, the newest last.
const gone = new Map(); // Replicas that left, by name: {replica, until}.
const known = new Set();

function shape(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const text = (x, y, words, kind = "") => shape("text", { x, y, class: kind }, words);
const sum = (numbers) => numbers.reduce((all, one) => all + one, 0);
const number = (value, digits = 1) =>
  value === null ? "–" : value.toFixed(value >= 100 ? 0 : digits);
const short = (words, most) => (words.length > most ? `${words.slice(0, most - 1)}…` : words);

// --- Arithmetic --------------------------------------------------------------------------------

// What happened a second between two looks, by `counted` of a status.
function rate(before, after, counted) {
  const seconds = (after.status.uptime_ms - before.status.uptime_ms) / 1000;
  return seconds > 0 ? Math.max(0, counted(after.status) - counted(before.status)) / seconds : 0;
}

const finished = (status) => status.counts.answered ?? 0;
const refused = (status) =>
  sum(Object.entries(status.counts).map(([name, n]) => (/^refused_|^expired$/.test(name) ? n : 0)));
const done = (name) => (status) => status.replicas.find((one) => one.name === name)?.done ?? 0;

// How often each size came between two looks, over all models: {bounds, counts}.
function between(before, after, which) {
  const bounds = after.models[0]?.[which].bounds ?? [];
  const counts = new Array(bounds.length + 1).fill(0);
  for (const model of after.models) {
    const old = before.models.find((one) => one.name === model.name)?.[which].counts ?? [];
    model[which].counts.forEach((n, part) => (counts[part] += n - (old[part] ?? 0)));
  }
  return { bounds, counts };
}

// The value that a share of all is below, straight between two bounds; null where there is nothing.
function quantile({ bounds, counts }, share) {
  const all = sum(counts);
  if (all <= 0) return null;
  let below = 0;
  for (const [part, n] of counts.entries()) {
    if (n > 0 && below + n >= share * all) {
      const from = part > 0 ? bounds[part - 1] : 0;
      const to = bounds[part] ?? from; // Above the last bound nothing more is known.
      return from + ((to - from) * (share * all - below)) / n;
    }
    below += n;
  }
  return bounds.at(-1);
}

// One value for each look, each over the SPAN before it.
function series(value) {
  return looks.map((look, at) => (at === 0 ? null : value(looks[Math.max(0, at - SPAN)], look)));
}

// --- The drawing -------------------------------------------------------------------------------

const BOX = { width: 210, height: 92, gap: 16 };

function draw(status) {
  const width = Math.max(280, drawing.clientWidth - 2 * parseFloat(getComputedStyle(drawing).paddingLeft));
  const upright = width < 720; // A phone: from top to bottom instead of left to right.
  const boxes = [
    ...status.replicas.map((replica) => ({ replica, left: false })),
    ...[...gone.values()].map(({ replica }) => ({ replica, left: true })),
  ];
  const box = { ...BOX, width: upright ? Math.min(width - 24, 320) : BOX.width };
  const [before, now] = [looks[Math.max(0, looks.length - 1 - SPAN)], looks.at(-1)];
  const tall = Math.max(1, boxes.length) * (box.height + box.gap) - box.gap;
  const height = upright ? 2 * (box.height + 40) + tall : Math.max(tall, box.height) + 4;
  const middle = (height - box.height) / 2;
  const x = upright ? [0, 0, 24] : [0, (width - box.width) / 2, width - box.width];
  const web = { x: x[0], y: upright ? 2 : middle };
  const broker = { x: x[1], y: upright ? box.height + 36 : middle };
  const first = upright ? 2 * (box.height + 36) : (height - tall) / 2;

  const parts = [link(web, broker, box, upright, rate(before, now, finished))];
  boxes.forEach(({ replica, left }, place) => {
    const at = { x: x[2], y: first + place * (box.height + box.gap) };
    const pace = left ? 0 : rate(before, now, done(replica.name));
    parts.push(link(broker, at, box, upright, pace, left, upright));
    parts.push(replicaNode(replica, at, box, left, pace));
  });
  parts.push(webNode(web, box, before, now), brokerNode(broker, box, status, before, now));
  if (boxes.length === 0) parts.push(text(x[2] + 12, first + 40, "No replica is alive", "soft"));
  stage.setAttribute("viewBox", `0 0 ${width} ${height}`);
  stage.setAttribute("width", width);
  stage.setAttribute("height", height);
  stage.replaceChildren(...parts);
  const queued = sum(status.models.map((model) => model.queued));
  const held = sum(status.replicas.map((replica) => replica.held));
  stage.setAttribute(
    "aria-label",
    `Web, broker and ${status.replicas.length} replicas: ${queued} waiting, ${held} in flight. ` +
      "The tables below say the same.",
  );
}

function link(from, to, box, upright, pace, left = false, branch = false) {
  let path;
  if (branch) {
    const [x, y] = [from.x + 10, from.y + box.height];
    path = `M${x} ${y}V${to.y + box.height / 2}H${to.x}`;
  } else if (upright) {
    const x = from.x + box.width / 2;
    path = `M${x} ${from.y + box.height}V${to.y}`;
  } else {
    const [x1, y1] = [from.x + box.width, from.y + box.height / 2];
    const [x2, y2] = [to.x, to.y + box.height / 2];
    const bend = (x1 + x2) / 2;
    path = `M${x1} ${y1}C${bend} ${y1} ${bend} ${y2} ${x2} ${y2}`;
  }
  const kind = `link${pace > 0.05 ? " busy" : ""}${left ? " left" : ""}`;
  return shape("path", { d: path, class: kind });
}

function node({ x, y }, box, kind, ...children) {
  const frame = shape("rect", { width: box.width, height: box.height, rx: 12 });
  return shape("g", { transform: `translate(${x} ${y})`, class: `node ${kind}` }, frame, ...children);
}

function webNode(at, box, before, now) {
  return node(
    at,
    box,
    "web",
    text(14, 26, "Web", "name"),
    text(14, 54, `${number(rate(before, now, finished))} /s answered`),
    text(14, 76, `${number(rate(before, now, refused))} /s refused`, "soft"),
  );
}

function brokerNode(at, box, status, before, now) {
  const queued = sum(status.models.map((model) => model.queued));
  const oldest = Math.max(0, ...status.models.map((model) => model.oldest_ms));
  const batch = quantile(between(before.status, now.status, "batch_sizes"), 0.5);
  return node(
    at,
    box,
    queued ? "broker queueing" : "broker",
    text(14, 26, "Broker", "name"),
    text(14, 54, queued ? `${queued} waiting, ${number(oldest, 0)} ms` : "nothing waits"),
    text(14, 76, batch === null ? "no batches lately" : `batches of about ${number(batch, 0)}`, "soft"),
  );
}

function replicaNode(replica, at, box, left, pace) {
  const state = left ? "left" : replica.leaving ? "leaving" : known.has(replica.name) ? "" : "joined";
  const room = box.width - 28;
  const words = left
    ? "has left"
    : `${replica.held} of ${replica.credit} held · ${number(pace)} /s`;
  const title = shape("title", {}, replica.name);
  const model = replica.leaving && !left ? "leaving" : `${replica.model} · ${replica.device}`;
  return node(
    at,
    box,
    `replica ${state}`,
    title,
    text(14, 24, short(replica.name, 26), "name"),
    text(14, 44, short(model, 30), "soft"),
    text(14, 66, words),
    shape("rect", { class: "credit", x: 14, y: 76, width: room, height: 6, rx: 3 }),
    shape("rect", {
      class: "held",
      x: 14,
      y: 76,
      width: left ? 0 : room * Math.min(1, replica.held / replica.credit),
      height: 6,
      rx: 3,
    }),
  );
}

// --- The graphs --------------------------------------------------------------------------------

function showGraphs(status) {
  const latency = (share) => (a, b) => quantile(between(a.status, b.status, "answered_ms"), share);
  const each = (value) => looks.map(({ status: s }) => value(s));
  const sizes = between(looks[0].status, status, "batch_sizes");
  graphs.replaceChildren(
    graph("Requests a second", "", [
      ["answered", series((a, b) => rate(a, b, finished))],
      ["refused", series((a, b) => rate(a, b, refused))],
    ]),
    graph("Time in broker and replica", " ms", [
      ["half within", series(latency(0.5))],
      ["95 % within", series(latency(0.95))],
    ]),
    graph("Requests inside", "", [
      ["in flight", each((s) => sum(s.replicas.map((one) => one.held)))],
      ["waiting", each((s) => sum(s.models.map((one) => one.queued)))],
    ]),
    histogram("Batch sizes", sizes),
  );
}

const FIELD = { width: 300, height: 96 };

function card(title, words, picture, legend, marks) {
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const heading = document.createElement("h2");
  heading.textContent = title;
  caption.append(heading, ...legend);
  picture.setAttribute("viewBox", `0 0 ${FIELD.width} ${FIELD.height}`);
  picture.setAttribute("preserveAspectRatio", "none");
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", `${title}: ${words}`);
  figure.className = "card graph";
  const axis = document.createElement("p");
  axis.className = marks.length > 2 ? "axis even" : "axis";
  axis.setAttribute("aria-hidden", "true");
  for (const words of marks) axis.appendChild(document.createElement("span")).textContent = words;
  figure.append(caption, picture, axis);
  return figure;
}

function entry(words, kind) {
  const span = document.createElement("span");
  span.className = `entry ${kind}`;
  span.textContent = words;
  return span;
}

function graph(title, unit, lines) {
  const top = Math.max(1, ...lines.flatMap(([, values]) => values.filter((v) => v !== null)));
  const place = (value, at) => {
    const x = FIELD.width * (1 - (looks.length - 1 - at) / (KEPT - 1));
    return `${x.toFixed(1)} ${(FIELD.height - 4 - (value / top) * (FIELD.height - 12)).toFixed(1)}`;
  };
  const picture = shape("svg");
  lines.forEach(([, values], nth) => {
    let pen = "M";
    let path = "";
    values.forEach((value, at) => {
      if (value !== null) path += `${pen}${place(value, at)}`;
      pen = value === null ? "M" : "L";
    });
    picture.append(shape("path", { d: path, class: nth ? "second" : "first" }));
  });
  const now = lines.map(([name, values]) => {
    const value = values.at(-1) ?? null;
    return `${name} ${number(value, Number.isInteger(value) ? 0 : 1)}${unit}`;
  });
  const legend = now.map((words, nth) => entry(words, nth ? "second" : "first"));
  return card(title, now.join(", "), picture, legend, ["two minutes ago", "now"]);
}

function histogram(title, { bounds, counts }) {
  const all = sum(counts);
  const picture = shape("svg");
  const wide = FIELD.width / Math.max(1, counts.length);
  counts.forEach((n, part) => {
    const high = all ? (n / Math.max(...counts)) * (FIELD.height - 8) : 0;
    const at = { x: part * wide + 3, y: FIELD.height - high, width: wide - 6, height: high };
    picture.append(shape("rect", { ...at, class: "first" }));
  });
  const names = bounds.map((bound, part) => {
    const from = part ? bounds[part - 1] + 1 : 1;
    return from === bound ? `${bound}` : `${from}–${bound}`;
  });
  names.push(`over ${bounds.at(-1)}`);
  const said = names.flatMap((name, part) => (counts[part] ? [`${counts[part]} in ${name}`] : []));
  const words = all ? said.join(", ") : "none yet";
  const legend = [entry(all ? `${all} requests in two minutes` : "none in two minutes", "first")];
  return card(title, words, picture, legend, [...bounds, "more"]);
}

// --- The tables --------------------------------------------------------------------------------

function row(name, ...cells) {
  const line = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = name;
  line.append(head);
  for (const words of cells) line.insertCell().textContent = words;
  return line;
}

function nothing(words, columns) {
  const line = document.createElement("tr");
  const cell = line.insertCell();
  cell.colSpan = columns;
  cell.textContent = words;
  return line;
}

function mean({ counts, total }, unit = "") {
  const all = sum(counts);
  return all ? `${(total / all).toFixed(1)}${unit}` : "–";
}

function fill(status) {
  const served = status.models.map((model) =>
    row(
      `${model.name} ${model.version}`,
      model.queued,
      `${model.oldest_ms.toFixed(0)} ms`,
      sum(model.answered_ms.counts),
      mean(model.answered_ms, " ms"),
      mean(model.batch_sizes),
      model.scale?.wanted ?? "–",
    ),
  );
  const alive = status.replicas.map((one) =>
    row(
      one.name,
      `${one.model} ${one.version}`,
      one.device,
      `${one.held} of ${one.credit}`,
      one.leaving ? "leaving" : one.busy_ms === null ? "idle" : "working",
      one.done,
      one.batches ? (one.done / one.batches).toFixed(1) : "–",
    ),
  );
  models.replaceChildren(...(served.length ? served : [nothing("None has introduced itself.", 7)]));
  replicas.replaceChildren(...(alive.length ? alive : [nothing("None is alive.", 7)]));
  if (uptime) uptime.textContent = `${(status.uptime_ms / 1000).toFixed(0)} s`;
}

// --- Once a second -----------------------------------------------------------------------------

function note(status) {
  const last = looks.at(-1)?.status;
  if (last && status.uptime_ms < last.uptime_ms) {
    looks = [];
    gone.clear();
  }
  // A look that web remembered is no new one.
  if (looks.length && status.uptime_ms === looks.at(-1).status.uptime_ms) return;
  const now = performance.now();
  const names = new Set(status.replicas.map((replica) => replica.name));
  for (const replica of looks.at(-1)?.status.replicas ?? []) {
    if (!names.has(replica.name)) gone.set(replica.name, { replica, until: now + GONE_MS });
  }
  for (const [name, { until }] of gone) if (until < now || names.has(name)) gone.delete(name);
  if (looks.length === 0) for (const name of names) known.add(name);
  looks = [...looks, { status }].slice(-KEPT);
}

function say(words, kind) {
  // Heard by whoever cannot see it, so only said when it changes.
  if (live.textContent !== words) live.textContent = words;
  live.classList.toggle("well", kind === "well");
  live.classList.toggle("ill", kind === "ill");
}

function render() {
  const { status } = looks.at(-1);
  drawing.hidden = graphs.hidden = false;
  draw(status);
  showGraphs(status);
  fill(status);
  for (const { name } of status.replicas) known.add(name);
}

async function look() {
  try {
    const answer = await fetch(source, { headers: { Accept: "application/json" } });
    const told = await answer.json();
    if (!answer.ok) return say(told.title ?? "The broker does not answer.", "ill");
    note(told);
    render();
    const count = told.replicas.length;
    say(`Live: ${count === 1 ? "one replica" : `${count || "no"} replicas`}.`, count ? "well" : "ill");
  } catch {
    say("The service cannot be reached.", "ill");
  }
}

let resting = null;
let looking = false;
async function poll() {
  clearTimeout(resting);
  if (document.hidden || looking) return;
  looking = true;
  const began = performance.now();
  await look();
  looking = false;
  resting = setTimeout(poll, Math.max(0, EVERY_MS - (performance.now() - began)));
}

document.addEventListener("visibilitychange", poll);
addEventListener("resize", () => {
  if (looks.length) draw(looks.at(-1).status);
});
poll();
