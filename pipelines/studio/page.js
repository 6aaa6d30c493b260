"use strict";
// The page of `studio`. All state is here; the server draws, and keeps nothing. Text of others is set as text, never as HTML.

const MOST_PICTURES = 100, LEAST_SIDE = 0.01, SVG = "http://www.w3.org/2000/svg";
const CORNERS = { nw: [0, 0], ne: [1, 0], sw: [0, 1], se: [1, 1] };
const at = (id) => document.getElementById(id);
const model = { classes: {}, most_objects: 0 };
// Each picture of the history: png (base64), layout (the text that the server wrote) and draft (what the person edits).
const pictures = [];
let current = -1, chosen = -1, running = null, checks = 0, drag = null;

const picture = () => pictures[current];
const objects = () => (picture() ? picture().draft.objects : []);
const colour = (label) => model.classes[label] || "#888888";
const isDark = (hex) => [1, 3, 5].reduce((sum, i, k) => sum + parseInt(hex.slice(i, i + 2), 16) * [0.3, 0.59, 0.11][k], 0) < 140;

function make(tag, values = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(values)) name in made ? (made[name] = value) : made.setAttribute(name, value);
  made.append(...inside);
  return made;
}

function draw(tag, values, ...inside) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(values)) made.setAttribute(name, value);
  made.append(...inside);
  return made;
}

// Layouts --------------------------------------------------------------------------------------------------------

function draftOf(layout) {
  const { caption, seed, sample, objects } = JSON.parse(layout);
  return { version: 1, caption, seed, sample, objects };
}

const drawnAs = (one) => draftOf(one.layout);
const isEdited = (one) => JSON.stringify(one.draft) !== JSON.stringify(drawnAs(one));

// COCO's run lengths, down one column after the other (see objgan/run_lengths.py) -> the runs, of 0 first.
function readRuns(counts) {
  if (typeof counts !== "string") return counts;
  const runs = [];
  for (let p = 0; p < counts.length;) {
    let value = 0, shift = 0, digit;
    do {
      digit = counts.charCodeAt(p++) - 48;
      value |= (digit & 31) << shift;
      shift += 5;
    } while (digit & 32);
    if (digit & 16) value |= -1 << shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}

const shapes = new Map();

function shapeUrl(mask, hex) {
  const key = hex + JSON.stringify([mask.size, mask.counts]);
  if (!shapes.has(key)) {
    const [height, width] = mask.size;
    const canvas = make("canvas", { width, height }), pen = canvas.getContext("2d");
    pen.fillStyle = hex;
    let place = 0, inside = false;
    for (const run of readRuns(mask.counts)) {
      if (inside) for (let i = place; i < place + run; i++) pen.fillRect(Math.floor(i / height), i % height, 1, 1);
      place += run;
      inside = !inside;
    }
    if (shapes.size > 500) shapes.clear();
    shapes.set(key, canvas.toDataURL());
  }
  return shapes.get(key);
}

const clamp = (value, least, most) => Math.min(Math.max(value, least), most);
const rounded = (value) => Math.round(value * 1e4) / 1e4;

// A box that lies in the picture, with its corner kept where a side is too long.
function fitted([x, y, w, h]) {
  x = rounded(clamp(x, 0, 1 - LEAST_SIDE));
  y = rounded(clamp(y, 0, 1 - LEAST_SIDE));
  return [x, y, rounded(clamp(w, LEAST_SIDE, 1 - x)), rounded(clamp(h, LEAST_SIDE, 1 - y))];
}

const moved = ([x, y, w, h], across, down) => fitted([clamp(x + across, 0, 1 - w), clamp(y + down, 0, 1 - h), w, h]);

function between([x1, y1], [x2, y2]) {
  return fitted([Math.min(x1, x2), Math.min(y1, y2), Math.abs(x1 - x2), Math.abs(y1 - y2)]);
}

function setBox(index, box) {
  objects()[index].box = box;
  show();
}

function remove(index) {
  objects().splice(index, 1);
  chosen = -1;
  edited();
  at("stage").focus();
}

function add(box) {
  const label = at("new-label").value.trim();
  if (!picture()) return;
  if (objects().length >= model.most_objects) return complain(`this model takes at most ${model.most_objects} objects: remove one first`);
  objects().push({ label, box });
  chosen = objects().length - 1;
  edited();
}

// What is seen ---------------------------------------------------------------------------------------------------

function complain(text) {
  at("message").textContent = text;
  at("message").hidden = !text;
}

// Redraws the page from the state. Where the focus is on something with an id, it stays there.
function show() {
  const focused = document.activeElement && document.activeElement.id, one = picture();
  showStage();
  showObjects();
  showHistory();
  at("picture").hidden = !one;
  at("empty").hidden = Boolean(one);
  if (one) {
    at("picture").src = `data:image/png;base64,${one.png}`;
    at("picture").alt = `picture of: ${JSON.parse(one.layout).caption}`;
  }
  at("edited").hidden = !one || !isEdited(one);
  at("reset").disabled = at("edited").hidden;
  at("add").disabled = !one || objects().length >= model.most_objects;
  at("count").textContent = one ? `${objects().length} of at most ${model.most_objects}` : "";
  for (const id of ["save-png", "save-layout"]) at(id).disabled = !one;
  at("draw").disabled = Boolean(running);
  at("redraw").disabled = !one || Boolean(running);
  at("back").disabled = current < 1;
  at("forward").disabled = current >= pictures.length - 1;
  if (focused && at(focused) && document.activeElement.id !== focused) at(focused).focus({ preventScroll: true });
}

function showStage() {
  const stage = at("stage"), one = picture();
  for (const what of ["boxes", "shapes"]) stage.classList.toggle(`no-${what}`, !at(`see-${what}`).checked);
  stage.replaceChildren();
  stage.tabIndex = -1;
  if (!one) return;
  if (at("see-picture").checked)
    stage.append(draw("image", { href: `data:image/png;base64,${one.png}`, width: 1000, height: 1000, preserveAspectRatio: "none" }));
  // The largest first: smaller boxes lie above it, and can be reached.
  const area = (index) => objects()[index].box[2] * objects()[index].box[3];
  const order = [...objects().keys()].sort((a, b) => area(b) - area(a));
  for (const index of order) if (objects()[index].mask) stage.append(shapeOf(objects()[index]));
  for (const index of order) stage.append(boxOf(objects()[index], index));
  if (drag && drag.fresh) stage.append(draw("rect", { class: "unbound", ...rect(drag.fresh) }));
}

const rect = ([x, y, width, height]) => ({ x: x * 1000, y: y * 1000, width: width * 1000, height: height * 1000 });

// What was drawn for `mask.box` moves and grows with the box.
function shapeOf({ label, box, mask }) {
  const from = mask.box || box, wide = box[2] / from[2], high = box[3] / from[3];
  const place = rect([box[0] - from[0] * wide, box[1] - from[1] * high, wide, high]);
  return draw("image", { class: "shape", href: shapeUrl(mask, colour(label)), opacity: 0.6, preserveAspectRatio: "none", ...place });
}

function boxOf({ label, box }, index) {
  const hex = colour(label), place = rect(box), is = index === chosen;
  const group = draw("g", {
    class: is ? "box chosen" : "box", id: `box-${index}`, "data-index": index, tabindex: 0, role: "button",
    "aria-pressed": is, "aria-label": `${label}, ${box.map((value) => `${Math.round(value * 100)} %`).join(", ")}`,
  });
  const wide = Math.min(label.length * 19 + 18, 1000), top = place.y >= 40 ? place.y - 40 : place.y;
  const left = Math.min(place.x, 1000 - wide);
  group.append(
    draw("rect", { class: "edge", stroke: hex, ...place }),
    draw("rect", { x: left, y: top, width: wide, height: 40, fill: hex }),
    draw("text", { x: left + 9, y: top + 30, fill: isDark(hex) ? "#fff" : "#111" }, label),
  );
  if (is)
    for (const [name, [right, low]] of Object.entries(CORNERS)) {
      const [x, y] = [place.x + right * place.width, place.y + low * place.height];
      group.append(draw("rect", { class: `handle ${name}`, "data-corner": name, x: x - 14, y: y - 14, width: 28, height: 28, stroke: hex }));
    }
  return group;
}

let rows = [];

// Rows are made again only for other objects: a field in which a person types stays the same field.
function showObjects() {
  const all = objects();
  if (rows.length !== all.length || rows.some((row, index) => row.object !== all[index])) {
    rows = all.map(rowOf);
    at("objects").replaceChildren(...rows.map((row) => row.item));
  }
  rows.forEach(({ object, item, chip, label, reshape, numbers, fields }, index) => {
    item.className = index === chosen ? "chosen" : "";
    chip.style.background = colour(object.label);
    label.setAttribute("aria-invalid", !(object.label in model.classes));
    reshape.disabled = !object.mask;
    numbers.hidden = index !== chosen;
    const values = [object.label, ...object.box.map((value) => Math.round(value * 1e3) / 1e3)];
    [label, ...fields].forEach((field, part) => { if (field !== document.activeElement) field.value = values[part]; });
  });
}

function rowOf(object, index) {
  const button = (text, name, onclick) => make("button", { type: "button", className: "quiet", textContent: text, title: name, onclick,
    "aria-label": `${name}: object ${index + 1}` });
  const chip = button("", "Choose", () => choose(index));
  chip.className = "chip";
  const label = make("input", { id: `label-${index}`, "aria-label": `label of object ${index + 1}`, onfocus: () => choose(index),
    onchange: () => { object.label = label.value.trim(); edited(); } });
  label.setAttribute("list", "classes");
  const reshape = button("new shape", "Let the model draw another shape", () => { delete object.mask; edited(); });
  const drop = button("×", "Remove", () => remove(index));
  const fields = ["x", "y", "w", "h"].map((name, part) => numberOf(object, index, name, part));
  const numbers = make("div", { className: "numbers" }, ...fields.map((field) => make("label", {}, field.name, field)));
  return { object, chip, label, reshape, numbers, fields,
    item: make("li", {}, make("div", { className: "line" }, chip, label, reshape, drop), numbers) };
}

function numberOf(object, index, name, part) {
  const field = make("input", { id: `${name}-${index}`, name, type: "number", min: 0, max: 1, step: "any", onchange: () => {
    object.box = fitted(object.box.map((value, other) => (other === part ? Number(field.value) : value)));
    field.value = object.box[part];
    edited();
  } });
  return field;
}

function showHistory() {
  if (at("history").children.length !== pictures.length || at("history").dataset.first !== (pictures[0] || {}).layout) {
    at("history").replaceChildren(...pictures.map((one, index) => {
      const drawn = drawnAs(one), name = `${drawn.caption} (seed ${drawn.seed}, sample ${drawn.sample})`;
      return make("li", {}, make("button", { type: "button", title: name, "aria-label": name, onclick: () => go(index) },
        make("img", { src: `data:image/png;base64,${one.png}`, alt: "" })));
    }));
    at("history").dataset.first = (pictures[0] || {}).layout;
  }
  [...at("history").children].forEach((item, index) => item.firstChild.setAttribute("aria-current", index === current));
}

function showFacts({ unknown_words: unknown = [], cut_words: cut = [], facts = [] }) {
  const parts = [];
  if (unknown.length) parts.push(`The model does not know: ${unknown.join(", ")}.`);
  if (cut.length) parts.push(`The caption is too long; left out: ${cut.join(" ")}.`);
  at("words").textContent = parts.join(" ");
  const none = make("li", { className: "soft", textContent: picture() ? "no numbers or places" : "" });
  at("facts").replaceChildren(...(facts.length ? facts.map(({ fact, kept }) => make("li", { className: kept ? "kept" : "broken" },
    make("b", { textContent: kept ? "✓" : "✗" }), make("span", { textContent: `${fact}${kept ? "" : " (not in this layout)"}` }))) : [none]));
}

function choose(index) {
  if (index === chosen) return;
  chosen = index;
  show();
}

function go(index) {
  current = index;
  chosen = -1;
  for (const name of ["caption", "seed", "sample"]) at(name).value = picture().draft[name];
  complain("");
  show();
  at("history").children[current].scrollIntoView({ block: "nearest", inline: "nearest" });
  if (isEdited(picture())) return check();
  checks++;
  showFacts(JSON.parse(picture().layout));
}

function edited() {
  show();
  check();
}

// The server -----------------------------------------------------------------------------------------------------

async function send(address, body, signal) {
  const answer = await fetch(address, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal });
  if (answer.ok) return answer;
  const text = await answer.text();
  let said = text;
  try { said = JSON.parse(text).error || text; } catch { /* no JSON */ }
  throw new Error(said || `the server answered ${answer.status}`);
}

const away = (error) => (error instanceof TypeError ? "the server does not answer: is `studio` still running?" : error.message);

// What the caption says of the layout as it is now. An answer that a later question has overtaken is dropped.
async function check() {
  const number = ++checks, caption = at("caption").value;
  if (!caption.trim()) return showFacts({});
  const body = { caption, layout: picture() ? JSON.stringify(picture().draft) : null };
  try {
    const answer = await (await send("/api/check", body)).json();
    if (number !== checks) return;
    complain("");
    showFacts(answer);
  } catch (error) {
    if (number === checks) complain(away(error));
  }
}

async function order(body, wholly = false) {
  if (running) return;
  running = new AbortController();
  complain("");
  const began = Date.now(), before = picture();
  let doing = "sending";
  const tick = () => { at("doing").textContent = `${doing} · ${Math.round((Date.now() - began) / 1000)} s`; };
  const clock = setInterval(tick, 250);
  at("progress").hidden = false;
  tick();
  show();
  try {
    const answer = await send("/api/draw", body, running.signal);
    for await (const line of lines(answer.body)) {
      if (line.state === "waiting") doing = `waiting, ${line.ahead} before you`;
      if (line.state === "drawing") doing = "drawing";
      if (line.state === "failed") throw new Error(line.error);
      if (line.state === "done") keep(line, before, wholly);
      tick();
    }
  } catch (error) {
    if (error.name !== "AbortError") complain(away(error));
  } finally {
    clearInterval(clock);
    running = null;
    at("progress").hidden = true;
    show();
  }
}

async function* lines(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

// What was edited for the new picture is in it: the picture before is again as it was drawn.
function keep({ png, layout }, before, wholly) {
  if (before) Object.assign(before.draft, drawnAs(before), wholly ? {} : { objects: before.draft.objects });
  pictures.push({ png, layout, draft: draftOf(layout) });
  if (pictures.length > MOST_PICTURES) pictures.shift();
  go(pictures.length - 1);
}

function save(name, kind, content) {
  const url = URL.createObjectURL(new Blob([content], { type: kind }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function nameOf(one) {
  const { caption, sample } = JSON.parse(one.layout);
  const words = caption.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");
  return `${words.slice(0, 48) || "picture"}_${sample}`;
}

// What a person does ---------------------------------------------------------------------------------------------

function pointOf(event) {
  const frame = at("stage").getBoundingClientRect();
  return [clamp((event.clientX - frame.left) / frame.width, 0, 1), clamp((event.clientY - frame.top) / frame.height, 0, 1)];
}

at("stage").addEventListener("pointerdown", (event) => {
  if (!picture() || event.button) return;
  const group = event.target.closest(".box"), corner = event.target.dataset.corner, start = pointOf(event);
  at("stage").setPointerCapture(event.pointerId);
  event.preventDefault();
  if (!group) {
    drag = { start };
    return choose(-1);
  }
  const index = Number(group.dataset.index), box = [...objects()[index].box];
  drag = { start, index, box, corner };
  choose(index);
  at(`box-${index}`).focus({ preventScroll: true });
});

at("stage").addEventListener("pointermove", (event) => {
  if (!drag) return;
  const now = pointOf(event), [across, down] = [now[0] - drag.start[0], now[1] - drag.start[1]];
  if (Math.abs(across) + Math.abs(down) < 0.005 && !drag.begun) return;
  drag.begun = true;
  if (drag.index === undefined) {
    drag.fresh = between(drag.start, now);
    return show();
  }
  const [x, y, w, h] = drag.box;
  if (!drag.corner) return setBox(drag.index, moved(drag.box, across, down));
  const [right, low] = CORNERS[drag.corner];
  // The opposite corner stays.
  setBox(drag.index, between([right ? x : x + w, low ? y : y + h], [x + right * w + across, y + low * h + down].map((v) => clamp(v, 0, 1))));
});

function letGo() {
  if (!drag) return;
  const { fresh, begun } = drag;
  drag = null;
  if (fresh && Math.min(fresh[2], fresh[3]) >= 0.02) return add(fresh);
  if (begun) edited();
}
at("stage").addEventListener("pointerup", letGo);
at("stage").addEventListener("pointercancel", letGo);

at("stage").addEventListener("keydown", (event) => {
  const group = event.target.closest && event.target.closest(".box");
  if (!group || event.ctrlKey || event.altKey || event.metaKey) return;
  const index = Number(group.dataset.index), box = objects()[index].box;
  const step = { ArrowLeft: [-0.01, 0], ArrowRight: [0.01, 0], ArrowUp: [0, -0.01], ArrowDown: [0, 0.01] }[event.key];
  if (step) {
    const [x, y, w, h] = box;
    objects()[index].box = event.shiftKey ? fitted([x, y, w + step[0], h + step[1]]) : moved(box, ...step);
    chosen = index;
    edited();
  } else if (event.key === "Delete" || event.key === "Backspace") remove(index);
  else if (event.key === "Enter") { choose(index); at(`label-${index}`).focus(); }
  else if (event.key === " ") choose(index);
  else return;
  event.preventDefault();
});
at("stage").addEventListener("focusin", (event) => {
  const group = event.target.closest(".box");
  if (group && !drag) choose(Number(group.dataset.index));
});

const wanted = () => ({ caption: at("caption").value, seed: Number(at("seed").value), sample: Number(at("sample").value) });

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  order(wanted());
});
at("redraw").onclick = () => {
  if (at("ask").reportValidity()) order({ caption: at("caption").value, layout: JSON.stringify({ ...picture().draft, ...wanted() }) }, true);
};
for (const name of ["caption", "seed", "sample"])
  at(name).addEventListener("input", () => {
    if (picture()) Object.assign(picture().draft, wanted());
    show();
    clearTimeout(at(name).wait);
    if (name === "caption") at(name).wait = setTimeout(check, 250);
  });
at("random").onclick = () => {
  at("seed").value = Math.floor(Math.random() * 1e6);
  at("seed").dispatchEvent(new Event("input"));
};
at("cancel").onclick = () => running && running.abort();
at("reset").onclick = () => { picture().draft = drawnAs(picture()); go(current); };
at("back").onclick = () => go(current - 1);
at("forward").onclick = () => go(current + 1);
at("new").addEventListener("submit", (event) => { event.preventDefault(); add([0.35, 0.35, 0.3, 0.3]); });
for (const what of ["boxes", "shapes", "picture"]) at(`see-${what}`).onchange = show;
at("save-png").onclick = () =>
  save(`${nameOf(picture())}.png`, "image/png", Uint8Array.from(atob(picture().png), (letter) => letter.charCodeAt(0)));
at("save-layout").onclick = () => save(`${nameOf(picture())}.json`, "application/json", picture().layout);
at("open").onchange = async () => {
  const [file] = at("open").files;
  at("open").value = "";
  if (!file) return;
  if (file.size > 4e6) return complain(`${file.name} has more than 4 MB: no layout`);
  const layout = await file.text();
  let caption = at("caption").value;
  try { caption = JSON.parse(layout).caption || caption; } catch { /* the server says what is wrong */ }
  order({ caption, layout });
};

(async () => {
  try {
    Object.assign(model, await (await fetch("/api/model")).json());
  } catch (error) {
    return complain(away(error));
  }
  const names = Object.keys(model.classes);
  at("model").textContent = `${model.name} · ${names.length} classes`;
  at("classes").replaceChildren(...names.map((name) => make("option", { value: name })));
  at("new-label").value = names[0];
  at("caption").placeholder = `a ${names[0]} and a ${names[names.length - 1]}`;
  show();
})();
