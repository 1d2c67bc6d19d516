// The status page. It asks /live once a second and draws what it says; it keeps nothing and asks nobody else.
"use strict";

const EVERY = 1000; // ms between two looks
const DOTS = 6; // drawn at most per link and look
const LASTS = 30; // seconds that a fault from a button lasts
const still = matchMedia("(prefers-reduced-motion: reduce)");
const byId = (id) => document.getElementById(id);
const bodyOf = (id) => document.querySelector(`#${id} tbody`);

let before = null; // the last look, for rates and news
let paused = false;
let lost = false;

/** A new element. Text goes in as text: what a client wrote is never read as markup. */
function make(name, attributes = {}, ...content) {
  const svg = ["line", "circle", "text", "g"].includes(name);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...content);
  return element;
}

const cell = (label, text, kind = "") => make("td", { "data-label": label, class: kind }, text);

function duration(us) {
  if (us == null) return "–";
  if (us < 1000) return `${Math.round(us)} µs`;
  if (us < 10_000) return `${(us / 1000).toFixed(1)} ms`;
  return us < 1_000_000 ? `${Math.round(us / 1000)} ms` : `${(us / 1e6).toFixed(2)} s`;
}

const seconds = (ms) => `${Math.ceil(ms / 1000)} s`;
const count = (number) => number.toLocaleString("en");

/** In what state a place is, in words: colour only repeats it. */
function stateOf(place) {
  const fault = place.fault || {};
  const words = [];
  if (fault.cut_left_ms != null) words.push(`cut on purpose, ${seconds(fault.cut_left_ms)} left`);
  else words.push({ up: "up", partly: "partly up", down: "down" }[place.state]);
  if (fault.delay_ms != null) words.push(`delayed by ${fault.delay_ms} ms, ${seconds(fault.delay_left_ms)} left`);
  return words.join("; ");
}

function rateOf(place, look) {
  if (place.requests == null) return null; // it calls us
  const old = before && before.places.find((known) => known.name === place.name && known.kind === place.kind);
  const time = before ? (look.now_ms - before.now_ms) / 1000 : 0;
  return old && time > 0 ? Math.max(0, place.requests - old.requests) / time : 0;
}

const titleOf = (place) => (place.kind === "local" ? "own origins" : place.name);

// ---- the map

/** Where places are drawn: this one in the middle, its origins below it, Central above, edges to the left and right. */
function spots(places) {
  const edges = places.filter((place) => place.kind === "edge");
  const far = new Map();
  edges.forEach((place, at) => {
    const [side, nth] = [at % 2 ? 1 : -1, Math.floor(at / 2)];
    const many = Math.ceil((edges.length - (at % 2)) / 2);
    const angle = many === 1 ? 0 : (nth / (many - 1) - 0.5) * 1.9;
    far.set(place.name, [180 + side * 135 * Math.cos(angle), 125 + 95 * Math.sin(angle)]);
  });
  return (place) => {
    if (place.kind === "local") return [180, 218];
    if (place.kind === "central") return [180, 32];
    return far.get(place.name);
  };
}

function drawMap(look) {
  const map = byId("map");
  const flying = [...map.querySelectorAll(".dot")];
  map.replaceChildren();
  const own = [180, 125];
  const at = spots(look.places);
  const nodes = [];
  for (const place of look.places) {
    const [x, y] = at(place);
    const down = place.state === "down" ? " down" : "";
    map.append(make("line", { x1: own[0], y1: own[1], x2: x, y2: y, class: `way${down}` }));
    const middle = [own[0] * 0.45 + x * 0.55, own[1] * 0.45 + y * 0.55 + (y === own[1] ? -7 : 4)];
    const told = place.state === "down" ? "down" : place.rtt_us != null ? duration(place.rtt_us) : "";
    if (told) nodes.push(make("text", { x: middle[0] + (x === own[0] ? 26 : 0), y: middle[1], class: `small${down}` }, told));
    nodes.push(make("circle", { cx: x, cy: y, r: 29, class: `place${down}` }));
    nodes.push(make("text", { x, y: y + 4, class: "name" }, place.kind === "local" ? "origins" : place.name));
    const rate = rateOf(place, look);
    if (rate) nodes.push(make("text", { x, y: y + 17, class: "rate" }, `${rate.toFixed(rate < 10 ? 1 : 0)}/s`));
    if (rate && !still.matches) fly(map, own, [x, y], place.kind, Math.round(rate));
  }
  map.append(...flying, ...nodes);
  map.append(make("circle", { cx: own[0], cy: own[1], r: 30, class: "place here" }));
  map.append(make("text", { x: own[0], y: own[1] + 4, class: "name" }, look.name));
}

/** Lets dots run to a place, spread over the time until the next look. */
function fly(map, from, to, kind, many) {
  for (let dot = 0; dot < Math.min(many, DOTS); dot += 1) {
    const circle = make("circle", { r: 4, cx: from[0], cy: from[1], class: `dot ${kind}` });
    map.append(circle);
    const way = `translate(${to[0] - from[0]}px, ${to[1] - from[1]}px)`;
    const run = circle.animate([{ transform: "none" }, { transform: way }], {
      duration: 700, delay: (dot * EVERY) / Math.min(many, DOTS), easing: "ease-in-out", fill: "backwards",
    });
    run.finished.then(() => circle.remove(), () => circle.remove());
  }
}

// ---- tables

function drawPlaces(look) {
  const rows = look.places.map((place) => {
    const row = make("tr", {}, make("th", { scope: "row" }, titleOf(place)));
    const rate = rateOf(place, look);
    const disk = place.durable < place.applied ? `, on disk ${count(place.durable)}` : "";
    const feed = place.applied == null ? "" : `at ${count(place.applied)}${disk}, ${seconds(place.applied_ago_ms)} ago`;
    row.append(
      cell("State", stateOf(place), place.state === "down" ? "down" : ""),
      cell("Round trip", place.kind === "local" ? "" : duration(place.rtt_us), "num"),
      cell("Requests/s", rate == null ? "" : rate.toFixed(rate < 10 ? 1 : 0), "num"),
      cell("In flight", place.active == null ? "" : count(place.active), "num"),
    );
    if (look.role === "central") row.append(cell("Feed", feed));
    if (look.faults_permitted && look.role === "edge") {
      row.append(make("td", { class: "acts" }, ...(place.kind === "local" ? [] : buttons(place.name, place.fault, true))));
    }
    return row;
  });
  keepingFocus(() => bodyOf("places").replaceChildren(...rows));
  document.querySelector("#places thead .feed").hidden = look.role !== "central";
  byId("faults-off").hidden = look.faults_permitted;
  document.querySelector("#places thead .acts").hidden = !look.faults_permitted || look.role !== "edge";
}

/** The buttons for faults at a place. */
function buttons(place, fault, isLink) {
  const button = (what, text, label) => make("button", { type: "button", "data-place": place, "data-do": what, "aria-label": label }, text);
  if (fault) return [button("mend", "Mend", isLink ? `Mend the link to ${place}` : "Start Central again")];
  if (!isLink) return [button("cut", `Stop Central for ${LASTS} s`, `Stop Central for ${LASTS} seconds`)];
  return [
    button("cut", `Cut ${LASTS} s`, `Cut the link to ${place} for ${LASTS} seconds`),
    button("delay", "Delay", `Delay requests to ${place} by 500 ms for ${LASTS} seconds`),
  ];
}

/** Draws anew what may hold the focus, and gives it back to the button that had it, or to its successor. */
function keepingFocus(draw) {
  const { place, do: what } = document.activeElement?.dataset || {};
  draw();
  if (!place) return;
  const next = document.querySelector(`button[data-place="${CSS.escape(place)}"][data-do="${what}"]`);
  (next || document.querySelector(`button[data-place="${CSS.escape(place)}"]`))?.focus();
}

function drawOwn(look) {
  const own = byId("own");
  const feed = look.feed;
  byId("feed").textContent = !feed ? "This place follows no Central."
    : !feed.following ? `The feed is at event ${count(feed.head)}.`
    : feed.connected ? `The feed is followed: event ${count(feed.applied)} of ${count(feed.head)} applied.`
    : `The feed is interrupted at event ${count(feed.applied)}; homes are served as last known. ${feed.trouble || ""}`;
  if (look.role !== "central" || !look.faults_permitted) return own.replaceChildren();
  const said = look.stopped ? `Central is stopped on purpose, ${seconds(look.stopped.cut_left_ms)} left. ` : "";
  keepingFocus(() => own.replaceChildren(make("p", { class: "acts" }, said, ...buttons("central", look.stopped, false))));
}

function drawLatency(look) {
  const rows = look.decisions.rows.filter((row) => row.total > 0);
  byId("span").textContent = `The last ${look.decisions.seconds} s, from the first octet to the last`;
  const name = { none: look.role === "central" ? "API" : "refused", reply: "by itself" };
  bodyOf("latency").replaceChildren(...rows.map((row) => make("tr", {},
    make("th", { scope: "row", class: row.decision }, name[row.decision] || row.decision),
    ...[count(row.recent), ...[row.p50_us, row.p90_us, row.p99_us, row.p999_us].map(duration)].map((text) => cell("", text, "num")))));
}

function drawRecent(look) {
  const left = byId("left-out");
  left.hidden = look.recent_left_out === 0;
  left.textContent = `A sample: ${count(look.recent_left_out)} requests came faster than they are listed.`;
  if (paused) return;
  bodyOf("recent").replaceChildren(...look.recent.map((one) => {
    const decision = one.decision || "nowhere";
    const to = one.decision === "remote" && one.home ? `remote ${one.home}` : decision;
    const kind = one.failure ? "failed" : decision;
    return make("tr", {},
      cell("Time", new Date(one.at_ms).toTimeString().slice(0, 8)),
      cell("Request", make("span", { class: "mono path" }, `${one.method} ${one.path}`)),
      cell("Went to", to, kind),
      cell("Because", (one.failure || one.reason).replaceAll("_", " "), one.failure ? "failed" : ""),
      cell("Status", String(one.status), "num"),
      cell("Took", duration(one.took_us), "num"));
  }));
}

// ---- news: only what has changed, so that nobody is read the same again

function news(look) {
  if (!before) return [];
  const told = [];
  for (const place of look.places) {
    const old = before.places.find((known) => known.name === place.name && known.kind === place.kind);
    const cut = Boolean(place.fault?.cut_left_ms);
    if (old && (old.state !== place.state || Boolean(old.fault?.cut_left_ms) !== cut)) {
      told.push(`${titleOf(place)}: ${cut ? "cut on purpose" : place.state}.`);
    }
  }
  if (before.feed?.connected !== look.feed?.connected) told.push(look.feed?.connected ? "The feed is followed again." : "The feed is interrupted.");
  if (before.ready !== look.ready) told.push(look.ready ? "Ready." : `Not ready: ${look.not_ready.join(", ")}.`);
  if (Boolean(before.stopped) !== Boolean(look.stopped)) told.push(look.stopped ? "Central is stopped on purpose." : "Central runs again.");
  return told;
}

function tell(text) {
  byId("news").textContent = text;
}

function draw(look) {
  document.title = `${look.name} – Coordinator`;
  byId("name").textContent = look.name;
  const up = Math.floor(look.uptime_ms / 1000);
  const since = up < 120 ? `${up} s` : up < 7200 ? `${Math.floor(up / 60)} min` : `${Math.floor(up / 3600)} h`;
  const state = look.draining ? "draining" : look.ready ? "ready" : `not ready: ${look.not_ready.join(", ")}`;
  const role = look.role === "central" ? "Central" : "Edge";
  byId("facts").textContent = `${role} of ${look.deployment}, ${state}, up for ${since}, ${count(look.connections)} connection${look.connections === 1 ? "" : "s"}, version ${look.version}`;
  const told = news(look);
  if (told.length) tell(told.join(" "));
  byId("explaining").hidden = look.role === "central"; // it has no routes
  drawMap(look);
  drawPlaces(look);
  drawOwn(look);
  drawLatency(look);
  drawRecent(look);
  before = look;
  document.documentElement.dataset.looked = "yes";
}

async function look() {
  try {
    const answer = await fetch("/live", { cache: "no-store", signal: AbortSignal.timeout(5 * EVERY) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const now = await answer.json();
    if (lost) tell("This place answers again.");
    lost = false;
    draw(now);
  } catch (error) {
    if (!lost) tell(`This place does not answer (${error.message}). What is shown is old.`);
    lost = true;
  }
  setTimeout(look, EVERY);
}

// ---- what a person does

byId("explain").addEventListener("submit", async (event) => {
  event.preventDefault();
  const query = [["method", byId("method").value], ["url", byId("url").value.trim()]];
  if (byId("field").value.trim()) query.push(["header", byId("field").value.trim()]);
  const out = byId("explanation");
  try {
    const answer = await fetch("/explain?" + query.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&"));
    out.textContent = (await answer.text()).trimEnd();
  } catch (error) {
    out.textContent = `This place does not answer (${error.message}).`;
  }
  out.hidden = false;
});

document.addEventListener("click", async (event) => {
  const { place, do: what } = event.target.closest("button")?.dataset || {};
  if (!place) return;
  const more = { cut: `&for=${LASTS}s`, delay: `&by=500ms&for=${LASTS}s`, mend: "" }[what];
  try {
    const answer = await fetch(`/faults?place=${encodeURIComponent(place)}&do=${what}${more}`, { method: "POST" });
    if (!answer.ok) tell((await answer.text()).trim());
  } catch (error) {
    tell(`This place does not answer (${error.message}).`);
  }
});

byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
});

look();
