// The page with JavaScript: pictures are dropped, pasted, photographed or chosen, many at once, and
// each shows what became of it.
//
// Rules:
// - The form without this script is what it rests on: the same address, asked for JSON.
// - A picture stays in the browser's memory, and leaves it for the service alone. What a link can
//   carry are the classes.
// - Whatever comes from elsewhere (answers, names of files, fragments of links) becomes text, never
//   markup.

const LANES = 4; // Uploads at a time. One client may have many more; its link is full before.
const SHOWN = 5; // Classes taken out of a link.
const AGAIN = new Set([0, 408, 429, 502, 503, 504]); // Worth another try, unlike a bad picture.
const SCALED = /^image\/(jpeg|png|webp)$/; // What photographs are, and every browser reads.
const SLOW_MS = 1000; // An upload that takes longer than this is looked after.

const form = document.querySelector("form.upload");
const results = document.querySelector(".results");
const list = results.querySelector("ol");
const heading = results.querySelector("h2");
const again = results.querySelector(".again");
const said = document.querySelector(".said");
const pattern = document.querySelector("#item").content.firstElementChild;

const items = new Map(); // By their elements, as shown.
const line = [];
let running = 0;
let bytesPerSecond = 0; // Of the last upload that was long enough to tell; 0 before.

class Item {
  constructor(file) {
    this.file = file;
    this.element = pattern.cloneNode(true);
    this.find(".name").textContent = file.name;
    this.find(".remove").setAttribute("aria-label", `Remove ${file.name || "this picture"}`);
    this.find(".remove").addEventListener("click", () => this.remove());
    const image = this.find("img");
    const url = URL.createObjectURL(file);
    image.addEventListener("load", () => (image.hidden = false));
    for (const end of ["load", "error"]) image.addEventListener(end, () => URL.revokeObjectURL(url));
    image.src = url;
    this.wait();
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  wait() {
    this.state = "waiting";
    this.problem = null;
    this.element.classList.remove("failed");
    this.say("Waiting");
    this.find(".notes").replaceChildren();
    this.find(".actions").replaceChildren();
    this.progress(0);
    line.push(this);
  }

  say(words) {
    this.find(".title").hidden = !words;
    this.find(".title").textContent = words;
  }

  progress(part) {
    const bar = this.find("progress");
    bar.hidden = false;
    bar.setAttribute("aria-label", `Upload of ${this.file.name || "the picture"}`);
    if (part < 1) bar.value = part;
    else bar.removeAttribute("value"); // From here on nobody knows how far it is.
  }

  async run() {
    this.state = "running";
    try {
      let body = this.file;
      if (await tooLong(this.file)) body = await this.smaller();
      let told = await this.send(body, body === this.file && SCALED.test(body.type));
      // It was too slow. What cannot be made smaller goes on as it is, however long it takes.
      if (told === null) told = await this.send(await this.smaller(), false);
      if (this.state === "removed") return;
      if (told.status === 200) this.show(told.body, told.elapsed);
      else this.fail(told);
    } finally {
      this.find("progress").hidden = true;
    }
  }

  async smaller() {
    const { scaled } = await import("./scale.js");
    const body = await scaled(this.file);
    this.scaled = body !== this.file;
    return body;
  }

  // Resolves to the answer, or to null if the upload was given up in favour of a smaller one.
  send(body, mayShrink) {
    return new Promise((resolve) => {
      const request = (this.request = new XMLHttpRequest());
      const began = performance.now();
      let shrinks = false;
      request.upload.addEventListener("progress", ({ loaded, total }) => {
        const spent = performance.now() - began;
        if (mayShrink && spent > SLOW_MS && (spent / loaded) * (total - loaded) > 2 * SLOW_MS) {
          shrinks = true;
          request.abort();
          return;
        }
        this.progress(loaded / total);
        this.say(`Uploading, ${Math.floor((100 * loaded) / total)} %`);
      });
      request.upload.addEventListener("load", () => {
        this.progress(1);
        this.say("Looking at it");
      });
      request.addEventListener("loadend", () => {
        if (shrinks) return resolve(null);
        const elapsed = performance.now() - began;
        const answer = {
          status: request.status,
          body: parsed(request.responseText),
          elapsed,
          retryAfter: Number(request.getResponseHeader("Retry-After")) || 0,
        };
        if (answer.status === 200 && body.size > 65536) {
          bytesPerSecond = (1000 * body.size) / Math.max(1, elapsed - answer.body.timing_ms.total);
        }
        resolve(answer);
      });
      request.open("POST", form.action);
      request.setRequestHeader("Accept", "application/json");
      const fields = new FormData();
      fields.append("file", body, "picture"); // Its real name is nobody's business.
      request.send(fields);
      this.say("Uploading");
    });
  }

  show(answer, elapsed) {
    this.state = "done";
    this.best = answer.predictions[0];
    const seen = answer.predictions.map(({ label, probability }) => [label, 100 * probability]);
    this.say(""); // The classes say it.
    showClasses(this.element, seen);
    const notes = [...answer.warnings];
    if (this.scaled) notes.push("scaled down in your browser, since your connection is slow");
    this.find(".notes").replaceChildren(...notes.map((note) => made("p", "warning", note)));
    this.showReceipt(answer, elapsed);
    const link = made("a", "share", "Link to this result");
    link.href = this.fragment = `#${new URLSearchParams(seen.map(([l, p]) => [l, p.toFixed(1)]))}`;
    link.addEventListener("click", (click) => copy(click, link));
    this.find(".actions").replaceChildren(link);
  }

  showReceipt({ timing_ms: ms, model, replica, batch_size }, elapsed) {
    const upload = Math.max(0, elapsed - ms.total);
    const steps = [
      ["Upload", upload],
      ["Decoding", ms.decode],
      ["Queue", ms.queue],
      ["Batch", ms.batch],
      ["Inference", ms.inference],
      ["In between", ms.total - ms.decode - ms.queue - ms.batch - ms.inference],
    ];
    let from = 0;
    const rows = steps.map(([name, spent]) => {
      const row = step(name, from, spent, elapsed);
      from += spent;
      return row;
    });
    const receipt = this.find(".receipt");
    receipt.hidden = false;
    receipt.querySelector("summary").textContent = `${elapsed.toFixed(0)}\u00a0ms in all`;
    receipt.querySelector("dl").replaceChildren(...rows);
    const crowd = batch_size > 1 ? `, in a batch of ${batch_size}` : "";
    const by = `${model.name}, version ${model.version}, on ${replica}${crowd}`;
    receipt.querySelector(".made").textContent = by;
  }

  fail({ status, body, retryAfter }) {
    this.state = "failed";
    this.problem = body?.title
      ? body
      : {
          title: status ? "The answer cannot be read" : "The service cannot be reached",
          detail: status ? `Its status is ${status}.` : "The connection was refused, or it broke.",
          remedy: "Try again in a moment.",
        };
    this.element.classList.add("failed");
    this.say(this.problem.title);
    this.find(".notes").replaceChildren(
      made("p", "", this.problem.detail),
      made("p", "remedy", this.problem.remedy),
    );
    if (AGAIN.has(status)) this.offer(retryAfter);
  }

  // A button for another try, once the time has passed that the service asked for.
  offer(seconds) {
    const button = made("button", "retry");
    button.type = "button";
    const until = performance.now() + 1000 * seconds;
    const count = () => {
      const left = Math.ceil((until - performance.now()) / 1000);
      button.disabled = left > 0;
      button.textContent = left > 0 ? `Retry in ${left} s` : "Retry";
      if (left > 0) setTimeout(count, 200);
      else tell();
    };
    button.addEventListener("click", () => this.retry());
    this.find(".actions").replaceChildren(button);
    count();
  }

  get retriable() {
    return this.element.querySelector(".retry:enabled") !== null;
  }

  retry() {
    this.wait();
    this.element.querySelector(".remove").focus();
    go();
  }

  remove() {
    const next = this.element.nextElementSibling ?? this.element.previousElementSibling;
    this.drop();
    (next?.querySelector(".remove") ?? form.elements.file).focus();
    tell();
  }

  drop() {
    this.state = "removed";
    this.request?.abort(); // The service notices, and spares the work.
    items.delete(this.element);
    this.element.remove();
  }
}

function made(name, kind, text = "") {
  const element = document.createElement(name);
  if (kind) element.className = kind;
  element.textContent = text;
  return element;
}

// A bar that fills `width` percent of its place, beginning at `from` percent.
function bar(width, from = 0) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const rect = svg.appendChild(document.createElementNS(svg.namespaceURI, "rect"));
  svg.setAttribute("class", "bar");
  svg.setAttribute("aria-hidden", "true");
  rect.setAttribute("x", `${from.toFixed(2)}%`);
  rect.setAttribute("width", `${width.toFixed(2)}%`);
  rect.setAttribute("height", "100%");
  return svg;
}

function step(name, from, spent, whole) {
  const row = document.createElement("div");
  const lane = made("dd", "lane");
  lane.setAttribute("aria-hidden", "true");
  lane.append(bar((100 * spent) / whole, (100 * from) / whole));
  row.append(made("dt", "", name), made("dd", "", `${spent.toFixed(1)}\u00a0ms`), lane);
  return row;
}

function showClasses(element, seen) {
  const classes = element.querySelector(".classes");
  classes.hidden = false;
  classes.replaceChildren(
    ...seen.map(([label, percent]) => {
      const row = document.createElement("li");
      const number = made("span", "percent", `${percent.toFixed(1)}\u00a0%`);
      row.append(made("span", "label", label), number, bar(percent));
      return row;
    }),
  );
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // From something between us and the service.
  }
}

// Whether the upload is worth a scaling; see scale.js, which is only loaded where that can be.
async function tooLong(file) {
  const large = file.size > 256 * 1024 && SCALED.test(file.type);
  if (!large) return false;
  const { worthwhile } = await import("./scale.js");
  return worthwhile(file.size, bytesPerSecond, Number(form.dataset.mostBytes));
}

function take(files) {
  const taken = [...files].map((file) => new Item(file));
  if (taken.length === 0) return;
  shared?.remove();
  for (const item of taken) items.set(item.element, item);
  list.prepend(...taken.map((item) => item.element));
  go();
}

async function go() {
  tell();
  while (running < LANES && line.length > 0) {
    const item = line.shift();
    if (item.state !== "waiting") continue;
    running += 1;
    item.run().finally(() => {
      running -= 1;
      go();
    });
  }
}

// Says how things stand, where it is seen and where it is heard.
function tell() {
  const all = [...items.values()];
  const done = all.filter((item) => item.state === "done");
  const failed = all.filter((item) => item.state === "failed");
  const over = done.length + failed.length === all.length;
  const worth = failed.filter((item) => item.retriable);
  results.hidden = all.length === 0 && !shared?.isConnected;
  results.setAttribute("aria-busy", String(!over));
  list.classList.toggle("many", list.children.length > 1);
  heading.textContent = over ? counted(all.length) : `${done.length + failed.length} of ${all.length}`;
  if (over && failed.length && all.length > 1) heading.textContent += `, ${failed.length} failed`;
  if (all.length === 0) heading.textContent = "From a link";
  again.hidden = worth.length < 2;
  again.textContent = `Retry ${worth.length}`;
  if (over && all.length === 1) {
    const [item] = all;
    const { best, problem } = item;
    said.textContent = problem
      ? `${problem.title}. ${problem.detail} ${problem.remedy}`
      : `${best.label}, ${(100 * best.probability).toFixed(0)} percent.`;
    address(item.fragment ?? "");
  } else {
    said.textContent = all.length ? `${heading.textContent}${over ? "" : " done"}.` : "";
    if (!shared?.isConnected) address("");
  }
}

function address(fragment) {
  // Only where it changes: browsers allow so many changes a minute.
  if (location.hash !== fragment) history.replaceState(null, "", fragment || location.pathname);
}

function counted(count) {
  return count === 1 ? "1 picture" : `${count} pictures`;
}

async function copy(click, link) {
  if (!navigator.clipboard) return; // Not over plain HTTP: the address bar then has it.
  click.preventDefault();
  await navigator.clipboard.writeText(link.href);
  link.textContent = "Link copied";
  said.textContent = "Link copied. It holds the classes, and no picture.";
  setTimeout(() => (link.textContent = "Link to this result"), 2000);
}

// The classes in the address, which anybody may have written.
let shared = null;
function showShared() {
  if ([...items.values()].some((item) => item.fragment === location.hash)) return;
  const seen = [...new URLSearchParams(location.hash.slice(1))]
    .map(([label, text]) => [label.slice(0, 80), text === "" ? NaN : Number(text)])
    .filter(([label, percent]) => label && percent >= 0 && percent <= 100)
    .slice(0, SHOWN);
  shared?.remove();
  if (seen.length > 0) {
    shared = pattern.cloneNode(true);
    shared.classList.add("shared");
    shared.querySelector(".title").remove();
    shared.querySelector(".name").textContent =
      "A result as a link tells it. The picture itself is stored nowhere.";
    shared.querySelector("progress").remove();
    shared.querySelector(".remove").setAttribute("aria-label", "Remove this result");
    shared.querySelector(".remove").addEventListener("click", clear);
    showClasses(shared, seen);
    list.prepend(shared);
  }
  tell();
}

function clear() {
  for (const item of [...items.values()]) item.drop();
  shared?.remove();
  tell();
  form.elements.file.focus();
}

// --- The ways in -----------------------------------------------------------------------------

document.documentElement.classList.add("js");
const field = form.elements.file;
field.multiple = true;
form.querySelector("label").textContent = "Choose pictures";

const camera = made("label", "camera", "Take a photo");
const lens = document.createElement("input");
for (const [name, value] of [["type", "file"], ["accept", "image/*"], ["capture", "environment"]]) {
  lens.setAttribute(name, value);
}
camera.append(lens);
field.after(camera, made("p", "ways", "or drop them anywhere on this page, or paste one"));

for (const input of [field, lens]) {
  input.addEventListener("change", () => {
    take(input.files);
    input.value = ""; // The same file may be chosen again.
  });
}
form.addEventListener("submit", (submit) => submit.preventDefault());

addEventListener("paste", (paste) => take(paste.clipboardData.files));

let inside = 0; // dragenter comes for each element before dragleave does for the last.
const carriesFiles = (drag) => drag.dataTransfer.types.includes("Files");
addEventListener("dragenter", (drag) => {
  if (!carriesFiles(drag)) return;
  inside += 1;
  document.body.classList.add("dragging");
});
addEventListener("dragleave", (drag) => {
  if (carriesFiles(drag) && --inside === 0) document.body.classList.remove("dragging");
});
addEventListener("dragover", (drag) => {
  if (carriesFiles(drag)) drag.preventDefault();
});
addEventListener("drop", (drop) => {
  if (!carriesFiles(drop)) return;
  drop.preventDefault();
  inside = 0;
  document.body.classList.remove("dragging");
  take(drop.dataTransfer.files);
});

again.addEventListener("click", () => {
  for (const item of items.values()) if (item.retriable) item.wait();
  go();
});
results.querySelector(".clear").addEventListener("click", clear);
addEventListener("hashchange", showShared);
showShared();
