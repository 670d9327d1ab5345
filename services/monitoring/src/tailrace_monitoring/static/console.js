// The console: asks for the chosen model once a second and redraws the parts that changed. All text goes in as text,
// never as markup.
"use strict";

const POLL_MS = 1000;
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);
const main = $("content");
const drawn = new Map();
let seenAlerts = null;
let seenChampion;

// ---------------------------------------------------------------- small parts

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function shape(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const known = (value) => value !== null && value !== undefined;
const count = (value) => (known(value) ? value.toLocaleString("en") : "–");
const percent = (value, digits = 1) => (known(value) ? `${(100 * value).toFixed(digits)} %` : "–");
const decimal = (value, digits = 3) => (known(value) ? value.toFixed(digits) : "–");
const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(100 * value).toFixed(1)}`;
const day = (text) => (text ? text.slice(0, 10) : "");
const moment = (text) => (text ? `${text.slice(0, 10)} ${text.slice(11, 19)}` : "");
const badge = (word, title) => element("span", { class: `badge ${word}`, title: title ?? null }, word);
const cell = (content, className = null) => element("td", { class: className }, content);
const number = (text) => cell(text, "number");
const time = (text) => element("time", { datetime: text ?? "" }, moment(text));
const ranges = (list) => list.map((r) => `${r.topic}[${r.partition}]@${r.from_offset}..${r.through_offset}`).join(", ");

function meter(share, className, label) {
  const width = Math.max(0, Math.min(1, share ?? 0)) * 100;
  const bar = shape(
    "svg",
    { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
    shape("rect", { class: "track", width: 100, height: 8, rx: 3 }),
    shape("rect", { class: `fill ${className}`, width, height: 8, rx: 3 }),
  );
  return element("div", { class: "meter" }, bar, element("span", {}, label));
}

function interval(comparison) {
  if (!comparison) return element("span", { class: "none" }, "–");
  const reach = Math.max(0.1, Math.abs(comparison.lower), Math.abs(comparison.upper));
  const at = (value) => 60 + (value / Math.min(1, reach)) * 56;
  const picture = shape(
    "svg",
    { viewBox: "0 0 120 14", "aria-hidden": "true" },
    shape("line", { class: "axis", x1: 2, x2: 118, y1: 7, y2: 7 }),
    shape("line", { class: "zero", x1: 60, x2: 60, y1: 1, y2: 13 }),
    shape("line", { class: `span ${comparison.verdict}`, x1: at(comparison.lower), x2: at(comparison.upper), y1: 7, y2: 7 }),
    shape("circle", { class: `dot ${comparison.verdict}`, cx: at(comparison.mean_difference), cy: 7, r: 4 }),
  );
  const words = `${signed(comparison.mean_difference)} points [${signed(comparison.lower)}, ${signed(comparison.upper)}] on ${count(comparison.examples)}`;
  return element("div", { class: "interval" }, picture, element("small", {}, words), badge(comparison.verdict));
}

function spark(history, threshold) {
  if (history.length < 2) return element("span", { class: "none" }, "–");
  const top = Math.max(threshold * 1.3, ...history.map(([, value]) => value));
  const x = (index) => (index / (history.length - 1)) * 108 + 1;
  const y = (value) => 21 - (value / top) * 20;
  const path = history.map(([, value], index) => `${index ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`);
  return shape(
    "svg",
    { viewBox: "0 0 110 22", class: "spark", "aria-hidden": "true" },
    shape("line", { x1: 0, x2: 110, y1: y(threshold), y2: y(threshold) }),
    shape("path", { d: path.join("") }),
  );
}

/** Redraw a part only when its data changed, so that focus, selection and scroll positions stay. */
function part(id, data, draw) {
  const text = JSON.stringify(data);
  if (drawn.get(id) === text) return;
  drawn.set(id, text);
  draw($(id), data);
}

function rows(table, list, row, columns, nothing) {
  const none = () => [element("tr", {}, element("td", { colspan: columns, class: "none" }, nothing))];
  table.tBodies[0].replaceChildren(...(list.length ? list.map(row) : none()));
}

// ---------------------------------------------------------------- the parts of the page

function drawModels(nav, models) {
  const chosen = main.dataset.model;
  nav.replaceChildren(
    ...models.map(({ model }) =>
      element("a", { href: `/?model=${encodeURIComponent(model)}`, "aria-current": model === chosen ? "page" : null }, model),
    ),
  );
}

function drawTiles(list, model) {
  const served = model.served;
  const champion = model.arms.find((arm) => arm.arm === "champion") ?? model.arms.find((arm) => arm.arm === "external");
  const name = !champion ? "none yet" : champion.version ? `version ${champion.version}` : "external";
  const running = model.trainings.filter((run) => run.stage !== "finished" && run.stage !== "failed").length;
  const tile = (title, value, more) => element("div", {}, element("dt", {}, title), element("dd", {}, value, element("small", {}, more)));
  list.replaceChildren(
    tile("Served accuracy", percent(served?.recent_accuracy), served ? `last 500; ${percent(served.accuracy)} overall` : "no labels yet"),
    tile("Champion", name, champion?.learner ?? (champion ? "the producers' own" : "waiting for a first version")),
    tile("Labelled examples", count(model.labelled_examples), served ? `${count(served.examples)} served` : "history"),
    tile("Alerts", count(model.alerts_total), model.alerts.length ? `last: ${model.alerts[0].kind}` : "none so far"),
    tile("Trainings", count(model.trainings.length), running ? `${running} running` : "none running"),
  );
}

function drawArms(table, arms) {
  const name = (arm) => (arm.version === null ? "–" : arm.continual ? `${arm.version}.${arm.revision}` : `${arm.version}`);
  const learner = (arm) => (arm.learner ? `${arm.learner}${arm.continual ? ", goes on learning" : ""}` : "–");
  const row = (arm) =>
    element(
      "tr",
      {},
      cell(element("span", {}, badge(arm.arm), known(arm.percent) ? element("small", {}, `  ${arm.percent} %`) : null)),
      cell(name(arm)),
      cell(learner(arm)),
      number(count(arm.examples)),
      number(percent(arm.accuracy)),
      cell(meter(arm.recent_accuracy, arm.arm, percent(arm.recent_accuracy))),
      cell(interval(arm.comparison)),
    );
  rows(table, arms, row, 7, "No version answers yet.");
}

const seriesName = (point) => (point.version ? `version ${point.version}` : point.arm);

function drawChart(place, cohorts) {
  const byName = new Map();
  for (const point of cohorts) {
    const name = seriesName(point);
    if (!byName.has(name)) byName.set(name, new Map());
    const points = byName.get(name);
    const before = points.get(point.start);
    const examples = point.examples + (before?.examples ?? 0);
    const right = point.examples * point.accuracy + (before ? before.examples * before.accuracy : 0);
    points.set(point.start, { examples, accuracy: right / examples });
  }
  const names = [...byName.keys()].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const starts = [...new Set(cohorts.map((point) => point.start))].sort();
  if (!starts.length) {
    place.replaceChildren(element("p", { class: "none" }, "No labels have come yet."));
    $("legend").replaceChildren();
    return;
  }
  const values = cohorts.map((point) => point.accuracy);
  const low = Math.max(0, Math.floor(Math.min(...values) * 10 - 0.2) / 10);
  const high = Math.min(1, Math.ceil(Math.max(...values) * 10 + 0.2) / 10);
  const [width, height, left, bottom] = [1140, 240, 44, 24];
  const first = Date.parse(starts[0]);
  const last = Date.parse(starts[starts.length - 1]);
  const x = (start) => (last > first ? left + ((Date.parse(start) - first) / (last - first)) * (width - left - 12) : (width + left) / 2);
  const y = (value) => 8 + ((high - value) / (high - low)) * (height - bottom - 8);
  const picture = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": chartWords(names, byName) });
  const step = high - low > 0.45 ? 0.2 : 0.1;
  for (let value = low; value <= high + 1e-9; value += step) {
    picture.append(
      shape("line", { class: "grid", x1: left, x2: width - 4, y1: y(value), y2: y(value) }),
      shape("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, `${Math.round(value * 100)} %`),
    );
  }
  const labels = starts.length > 8 ? [0, 0.25, 0.5, 0.75, 1].map((share) => starts[Math.round(share * (starts.length - 1))]) : starts;
  labels.forEach((start, index) => {
    const anchor = labels.length === 1 ? "middle" : index === 0 ? "start" : index === labels.length - 1 ? "end" : "middle";
    picture.append(shape("text", { x: x(start), y: height - 6, "text-anchor": anchor }, day(start)));
  });
  names.forEach((name, index) => {
    const className = `s${(index % 6) + 1}`;
    const points = [...byName.get(name)].sort(([a], [b]) => (a < b ? -1 : 1));
    const path = points.map(([start, point], at) => `${at ? "L" : "M"}${x(start).toFixed(1)} ${y(point.accuracy).toFixed(1)}`);
    picture.append(shape("path", { d: path.join(""), class: className }));
    for (const [start, point] of points) {
      const dot = shape("circle", { cx: x(start), cy: y(point.accuracy), r: 2.6, class: className });
      dot.append(shape("title", {}, `${name}, ${day(start)}: ${percent(point.accuracy)} of ${count(point.examples)}`));
      picture.append(dot);
    }
  });
  place.replaceChildren(picture);
  $("legend").replaceChildren(
    ...names.map((name, index) => {
      const line = shape("line", { x1: 1, x2: 17, y1: 4, y2: 4, "stroke-width": 3, class: `s${(index % 6) + 1}` });
      return element("li", {}, shape("svg", { viewBox: "0 0 18 8", "aria-hidden": "true" }, line), name);
    }),
  );
}

function chartWords(names, byName) {
  const newest = (name) => [...byName.get(name)].sort(([a], [b]) => (a < b ? 1 : -1))[0];
  return `Accuracy by prediction time. ${names.map((name) => `${name}: ${percent(newest(name)[1].accuracy)} since ${day(newest(name)[0])}`).join("; ")}.`;
}

function drawColumns(table, columns) {
  const row = (column) => {
    const now = column.now ?? {};
    const over = column.drifted ? badge("drifted") : known(column.distance) ? badge("steady") : element("span", { class: "none" }, "no reference");
    return element(
      "tr",
      {},
      element("td", {}, column.name),
      cell(over),
      number(decimal(column.distance)),
      number(known(column.threshold) ? String(column.threshold) : "–"),
      cell(spark(column.history, column.threshold)),
      number(decimal(now.mean)),
      number(decimal(now.deviation)),
      number(count(now.missing)),
      number(count(now.bad)),
    );
  };
  rows(table, columns, row, 9, "No window of statistics yet.");
}

function drawGroups(table, groups) {
  $("groups-section").hidden = !groups.length;
  if (!groups.length) return;
  const span = groups[0].cohort;
  $("groups-hint").textContent = `The newest cohort of served predictions, ${day(span.start)} to ${day(span.end)}.`;
  const row = (group) =>
    element(
      "tr",
      {},
      cell(group.attribute),
      cell(group.group),
      number(count(group.examples)),
      cell(meter(group.selection_rate, "", percent(group.selection_rate))),
      number(percent(group.true_positive_rate)),
      number(percent(group.false_positive_rate)),
      number(percent(group.accuracy)),
    );
  rows(table, groups, row, 7, "");
}

function feed(list, entries, entry, nothing) {
  list.replaceChildren(...(entries.length ? entries.map(entry) : [element("li", { class: "none" }, nothing)]));
}

function drawAlerts(list, alerts) {
  const entry = (alert) =>
    element(
      "li",
      { "data-kind": alert.kind },
      element("div", { class: "head" }, badge(alert.kind), element("strong", {}, alert.subject), time(alert.time)),
      element("p", {}, alert.message),
      alert.led_to ? element("small", {}, `led to training ${alert.led_to}`) : null,
    );
  feed(list, alerts, entry, "Nothing has moved.");
}

function drawTrainings(list, trainings) {
  const entry = (run) => {
    const going = run.stage === "training" && run.epochs;
    const title = `${ranges(run.ranges ?? [])}`;
    return element(
      "li",
      {},
      element("div", { class: "head" }, badge(run.stage), element("strong", { title }, run.run_id), time(run.time)),
      run.reason ? element("p", {}, run.reason) : null,
      run.message && run.message !== run.reason ? element("p", {}, element("small", {}, run.message)) : null,
      going ? meter(run.epoch / run.epochs, "", `epoch ${run.epoch} of ${run.epochs}${known(run.loss) ? `, loss ${decimal(run.loss)}` : ""}`) : null,
      title ? element("code", {}, title) : null,
    );
  };
  feed(list, trainings, entry, "None so far.");
}

function drawVersions(table, versions) {
  const row = (version) =>
    element(
      "tr",
      {},
      cell(version.continual ? `${version.version}.${version.revision}` : String(version.version)),
      cell(badge(version.stage)),
      cell(version.learner),
      number(count(version.examples)),
      cell(element("code", {}, version.trained_on.join(", "))),
      cell(time(version.time)),
    );
  rows(table, versions, row, 6, "No version yet.");
}

const MOST_WINDOWS = 12;

function drawCoverage(table, windows) {
  $("coverage-section").hidden = !windows.length;
  const row = (each) =>
    element(
      "tr",
      {},
      cell(day(each.start) === day(each.end) ? moment(each.start) : day(each.start)),
      number(count(each.predictions)),
      cell(meter(each.share, "champion", percent(each.share))),
      number(count(each.waiting)),
      number(count(each.expired)),
      number(count(each.corrections)),
      number(count(each.late_labels)),
      number(count(each.unmatched_labels)),
    );
  rows(table, windows.slice(-MOST_WINDOWS).reverse(), row, 8, "No predictions yet.");
}

function drawAudit(list, entries) {
  const entry = (link) =>
    element(
      "li",
      {},
      element("div", { class: "head" }, badge(link.outcome), element("strong", {}, `${link.action} · ${link.subject}`), element("small", {}, `by ${link.actor}`), time(link.time)),
      element("p", {}, link.reason),
      ...link.evidence.map((each) => element("small", { class: "evidence" }, `${each.kind}: ${each.summary}`)),
    );
  feed(list, entries, entry, "No decision yet.");
}

function announce(model) {
  const newest = model.alerts[0];
  const champion = model.deployment?.champion ?? null;
  if (seenAlerts !== null && newest && newest.alert_id !== seenAlerts) $("announcer").textContent = `New alert: ${newest.message}`;
  else if (seenChampion !== undefined && champion !== seenChampion) $("announcer").textContent = `Version ${champion} is champion.`;
  seenAlerts = newest?.alert_id ?? "";
  seenChampion = champion;
}

// ---------------------------------------------------------------- drawing and polling

function show({ models, model }) {
  part("models", [models.map((each) => each.model), main.dataset.model], (nav) => drawModels(nav, models));
  $("sections").hidden = !model;
  $("empty").hidden = Boolean(model);
  if (!model) {
    $("empty").textContent = models.length
      ? `There is no model ${main.dataset.model}. Choose one above.`
      : "There is no model yet. Apply a model spec to begin: tailrace apply SPEC.yaml";
    return;
  }
  part("title", model.model, (place, text) => (place.textContent = text));
  part("description", [model.description, model.owner], (place) => {
    place.textContent = `${model.description ? `${model.description} ` : ""}Owned by ${model.owner}; spec revision ${model.spec_revision}.`;
  });
  const total = models.find((each) => each.model === model.model)?.alerts ?? model.alerts.length;
  part("tiles", { ...pick(model, ["served", "labelled_examples", "arms", "trainings", "alerts"]), alerts_total: total }, drawTiles);
  part("deployment", model.deployment, (place) => (place.textContent = model.deployment?.reason ?? ""));
  part("arms", model.arms, drawArms);
  part("chart", model.cohorts, drawChart);
  part("coverage", model.coverage, drawCoverage);
  part("alerts", model.alerts, drawAlerts);
  part("trainings", model.trainings, drawTrainings);
  part("window", model.window, (place, window) => {
    place.textContent = window
      ? `${window.closed ? "Closed" : "Open"} window ${day(window.start)} to ${day(window.end)}, ${count(window.events)} events; distances are of the newest closed window.`
      : "";
  });
  part("columns", model.columns, drawColumns);
  part("groups", model.groups, drawGroups);
  part("versions", model.versions, drawVersions);
  part("audit", model.audit, drawAudit);
  announce(model);
}

const pick = (object, names) => Object.fromEntries(names.map((name) => [name, object[name]]));

async function ask(path) {
  const answer = await fetch(path, { headers: { accept: "application/json" }, signal: AbortSignal.timeout(8000) });
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Error(String(answer.status));
  return answer.json();
}

function pulse(live) {
  const place = $("pulse");
  place.className = live ? "pulse live" : "pulse lost";
  const words = live ? "live" : "no answer, trying again";
  if (place.textContent !== words) place.textContent = words;
}

async function poll() {
  try {
    const { models } = await ask("/api/models");
    if (!main.dataset.model && models.length) main.dataset.model = models[0].model;
    const chosen = main.dataset.model;
    show({ models, model: chosen ? await ask(`/api/models/${encodeURIComponent(chosen)}`) : null });
    pulse(true);
  } catch {
    pulse(false);
  } finally {
    setTimeout(poll, document.hidden ? 5 * POLL_MS : POLL_MS);
  }
}

show(JSON.parse($("data").textContent));
poll();
