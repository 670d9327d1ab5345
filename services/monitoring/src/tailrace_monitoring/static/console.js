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
const short = (value) => (known(value) ? String(Number(value.toPrecision(4))) : "–");
/** A regression is shown by its mean absolute error, which stands among `metrics`; any other model by its accuracy. */
const isError = (part) => known(part?.metrics?.mae);
const figure = (part) => (isError(part) ? part.metrics.mae : part?.accuracy);
const said = (part) => (isError(part) ? short(part.metrics.mae) : percent(part?.accuracy));
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

/** A share with its interval: a dot in a span on a scale from 0 to 1 (or `low` to `high`), and the numbers in words. */
function share(value, bounds, { low = 0, high = 1, className = "", say = null } = {}) {
  if (!known(value)) return element("span", { class: "none" }, "–");
  const at = (point) => 3 + ((Math.max(low, Math.min(high, point)) - low) / (high - low)) * 94;
  const picture = shape("svg", { viewBox: "0 0 100 12", class: "whisker", "aria-hidden": "true" }, shape("line", { class: "axis", x1: 3, x2: 97, y1: 6, y2: 6 }));
  if (low < 0) picture.append(shape("line", { class: "zero", x1: at(0), x2: at(0), y1: 1, y2: 11 }));
  if (bounds) picture.append(shape("line", { class: `span ${className}`, x1: at(bounds.lower), x2: at(bounds.upper ?? high), y1: 6, y2: 6 }));
  picture.append(shape("circle", { class: `dot ${className}`, cx: at(value), cy: 6, r: 3.4 }));
  const digits = say ?? (low < 0 ? signed : (point) => (100 * point).toFixed(1));
  const words = say ? say(value) : low < 0 ? signed(value) : percent(value);
  const between = bounds ? `[${digits(bounds.lower)}, ${digits(bounds.upper ?? high)}]` : null;
  return element("div", { class: "share" }, picture, element("span", {}, words, between ? element("small", {}, ` ${between}`) : null));
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
  for (const head of document.querySelectorAll("[data-figure]")) head.textContent = isError(served) ? "Mean absolute error" : "Accuracy";
  list.replaceChildren(
    isError(served)
      ? tile("Served error", short(served.metrics.recent_mae), `mean absolute, lately; ${short(served.metrics.mae)} overall`)
      : tile("Served accuracy", percent(served?.recent_accuracy), served ? `last 500; ${percent(served.accuracy)} overall` : "no labels yet"),
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
      number(said(arm)),
      isError(arm) ? cell(short(arm.metrics.recent_mae)) : cell(meter(arm.recent_accuracy, arm.arm, percent(arm.recent_accuracy))),
      cell(interval(arm.comparison)),
    );
  rows(table, arms, row, 7, "No version answers yet.");
}

const seriesName = (point) => (point.version ? `version ${point.version}` : point.arm);

/** The intervals of a series, as an area behind its line. */
function band(points, x, y, low, className) {
  const upper = points.map(([start, point]) => `${x(start).toFixed(1)} ${y(point.upper).toFixed(1)}`);
  const lower = points.map(([start, point]) => `${x(start).toFixed(1)} ${y(Math.max(low, point.lower)).toFixed(1)}`).reverse();
  return shape("path", { d: `M${[...upper, ...lower].join("L")}Z`, class: `band ${className}` });
}

const figureOf = (estimate) => estimate.estimates.accuracy ?? estimate.estimates.mae;
const saidOf = (estimate) => (estimate.estimates.accuracy ? percent(figureOf(estimate).value) : short(figureOf(estimate)?.value));

/** Estimates of a series: a dashed line through them, a whisker at each. */
function estimated(name, estimates, x, y, low, high, className) {
  const mine = estimates.filter((each) => seriesName(each) === name && figureOf(each)).sort((a, b) => (a.cohort.start < b.cohort.start ? -1 : 1));
  if (!mine.length) return [];
  const at = (value) => y(Math.max(low, Math.min(high, value))).toFixed(1);
  const path = mine.map((each, index) => `${index ? "L" : "M"}${x(each.cohort.start).toFixed(1)} ${at(figureOf(each).value)}`);
  const whiskers = mine.map((each) => {
    const where = x(each.cohort.start).toFixed(1);
    const line = shape("line", { x1: where, x2: where, y1: at(figureOf(each).lower), y2: at(figureOf(each).upper), class: `estimate ${className}` });
    line.append(shape("title", {}, `${name}, ${day(each.cohort.start)}: estimated ${saidOf(each)}`));
    return line;
  });
  return [shape("path", { d: path.join(""), class: `estimate ${className}` }), ...whiskers];
}

function drawChart(place, model) {
  const { cohorts } = model;
  const byName = new Map();
  for (const point of cohorts) {
    const name = seriesName(point);
    if (!byName.has(name)) byName.set(name, new Map());
    const points = byName.get(name);
    const before = points.get(point.start);
    const examples = point.examples + (before?.examples ?? 0);
    const sum = point.examples * figure(point) + (before ? before.examples * figure(before) : 0);
    const both = isError(point) ? { examples, metrics: { mae: sum / examples } } : { examples, accuracy: sum / examples };
    points.set(point.start, before ? both : point);
  }
  const names = [...byName.keys()].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const starts = [...new Set([...cohorts.map((point) => point.start), ...model.estimates.map((each) => each.cohort.start)])].sort();
  if (!cohorts.length) {
    place.replaceChildren(element("p", { class: "none" }, "No labels have come yet."));
    $("legend").replaceChildren();
    return;
  }
  const values = cohorts.map(figure);
  const errors = cohorts.some(isError);
  const low = errors ? 0 : Math.max(0, Math.floor(Math.min(...values) * 10 - 0.2) / 10);
  const high = errors ? Math.max(...values) * 1.1 || 1 : Math.min(1, Math.ceil(Math.max(...values) * 10 + 0.2) / 10);
  const [width, height, left, bottom] = [1140, 240, 44, 24];
  const first = Date.parse(starts[0]);
  const last = Date.parse(starts[starts.length - 1]);
  const x = (start) => (last > first ? left + ((Date.parse(start) - first) / (last - first)) * (width - left - 12) : (width + left) / 2);
  const y = (value) => 8 + ((high - value) / (high - low)) * (height - bottom - 8);
  const picture = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": chartWords(names, byName) });
  const step = errors ? high / 4 : high - low > 0.45 ? 0.2 : 0.1;
  for (let value = low; value <= high + 1e-9; value += step) {
    picture.append(
      shape("line", { class: "grid", x1: left, x2: width - 4, y1: y(value), y2: y(value) }),
      shape("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, errors ? short(Number(value.toPrecision(2))) : `${Math.round(value * 100)} %`),
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
    const path = points.map(([start, point], at) => `${at ? "L" : "M"}${x(start).toFixed(1)} ${y(figure(point)).toFixed(1)}`);
    if (points.every(([, point]) => known(point.lower))) picture.append(band(points, x, y, low, className));
    picture.append(shape("path", { d: path.join(""), class: className }));
    picture.append(...estimated(name, model.estimates, x, y, low, high, className));
    for (const [start, point] of points) {
      const dot = shape("circle", { cx: x(start), cy: y(figure(point)), r: 2.6, class: className });
      dot.append(shape("title", {}, `${name}, ${day(start)}: ${said(point)} of ${count(point.examples)}`));
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
  const what = names.some((name) => isError(newest(name)[1])) ? "Mean absolute error" : "Accuracy";
  return `${what} by prediction time. ${names.map((name) => `${name}: ${said(newest(name)[1])} since ${day(newest(name)[0])}`).join("; ")}.`;
}

/** The newest windows of every arm in numbers, realised and estimated side by side. */
function drawCohorts(table, model) {
  const key = (start, arm, version) => `${start}|${arm}|${version || 0}`;
  const estimates = new Map(model.estimates.map((each) => [key(Date.parse(each.cohort.start), each.arm, each.version), each]));
  const cohorts = new Map(model.cohorts.map((each) => [key(Date.parse(each.start), each.arm, each.version), each]));
  const lines = [...new Set([...estimates.keys(), ...cohorts.keys()])].map((name) => ({ cohort: cohorts.get(name), estimate: estimates.get(name) }));
  const start = (line) => line.cohort?.start ?? line.estimate.cohort.start;
  lines.sort((a, b) => Date.parse(start(b)) - Date.parse(start(a)));
  const row = ({ cohort, estimate }) => {
    const guess = estimate && figureOf(estimate);
    const doubtful = estimate?.doubts?.length;
    return element(
      "tr",
      {},
      cell(day(start({ cohort, estimate }))),
      cell(element("span", {}, badge((cohort ?? estimate).arm), element("small", {}, ` ${(cohort ?? estimate).version || ""}`))),
      number(count(cohort?.examples ?? estimate?.labelled ?? 0)),
      cell(isError(cohort) ? said(cohort) : share(cohort?.accuracy, cohort && known(cohort.lower) ? cohort : null, { low: 0.5 })),
      cell(guess && !estimate.estimates.accuracy ? `${short(guess.value)} [${short(guess.lower)}, ${short(guess.upper)}]` : guess ? share(guess.value, guess, { low: 0.5, className: "estimate" }) : element("span", { class: "none" }, "–")),
      number(count(estimate?.events)),
      cell(doubtful ? badge("doubtful", estimate.doubts.join(" ")) : cohort && !cohort.closed ? badge("open") : null),
    );
  };
  rows(table, lines.slice(0, 30), row, 7, "No window yet.");
}

/** What the newest estimate says of itself: how often it was right, and why it may be wrong now. */
function drawDoubts(list, estimates) {
  const newest = [...estimates].sort((a, b) => (a.cohort.start < b.cohort.start ? 1 : -1))[0];
  const words = newest ? [...newest.doubts] : [];
  if (newest && known(newest.realised_coverage)) {
    words.unshift(`Of ${count(newest.realised_cohorts)} windows estimated so far, ${percent(newest.realised_coverage, 0)} turned out inside their first interval (promised: ${percent(newest.confidence, 0)}).`);
  }
  list.replaceChildren(...words.map((each) => element("li", {}, each)));
}

function drawColumns(table, columns) {
  const row = (column) => {
    const over = column.drifted ? badge("drifted") : known(column.distance) ? badge("steady") : element("span", { class: "none" }, "no reference");
    const ratio = known(column.distance) && column.threshold ? column.distance / column.threshold : null;
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, column.name),
      cell(over),
      number(decimal(column.distance)),
      cell(column.statistic ? element("small", {}, column.statistic) : null),
      number(known(column.threshold) ? String(+column.threshold.toPrecision(3)) : "–"),
      cell(known(ratio) ? meter(ratio / 2, ratio > 1 ? "over" : "", `${ratio.toFixed(2)} ×`) : element("span", { class: "none" }, "–")),
      cell(spark(column.history.map(([start, distance, threshold]) => [start, threshold ? distance / threshold : 0]), 1)),
    );
  };
  const far = (column) => (known(column.distance) && column.threshold ? column.distance / column.threshold : -1);
  const listed = columns.filter((column) => column.name !== "latency_ms");
  rows(table, [...listed].sort((a, b) => far(b) - far(a)), row, 7, "No window of statistics yet.");
}

const partOf = (value, whole) => (whole ? value / whole : null);

function frequent(now) {
  if (!now.frequent?.length) return element("span", { class: "none" }, "–");
  const words = now.frequent.slice(0, 4).map(([value, times]) => `${value} (${percent(partOf(times, now.count), 0)})`);
  const more = now.unseen?.length ? element("small", {}, ` unseen: ${now.unseen.join(", ")}`) : null;
  return element("span", {}, words.join(", "), more);
}

function drawQuality(table, columns) {
  const trouble = (value, whole) => element("span", { class: value ? "trouble" : "" }, count(value), value ? element("small", {}, ` ${percent(partOf(value, whole))}`) : null);
  const row = ({ name, now }) => {
    const whole = now.count + now.missing;
    const spread = known(now.median) ? `${decimal(now.p05, 2)} – ${decimal(now.median, 2)} – ${decimal(now.p95, 2)}` : "–";
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, name),
      number(count(now.count)),
      number(trouble(now.missing, whole)),
      number(trouble(now.bad, whole)),
      number(decimal(now.mean)),
      number(decimal(now.deviation)),
      cell(spread),
      number(count(now.distinct)),
      cell(frequent(now), "words"),
    );
  };
  rows(table, columns.filter((column) => column.now), row, 9, "No window of statistics yet.");
}

const sliceName = (slice) => (slice.attribute ? `${slice.attribute} = ${slice.group}` : `${slice.arm}${slice.version ? ` ${slice.version}` : ""}`);

function drawSlices(table, model) {
  const slices = model.window?.slices ?? [];
  $("slices-section").hidden = !slices.length;
  if (!slices.length) return;
  const whole = { events: model.window.events, columns: Object.fromEntries(model.columns.map(({ name, now }) => [name, now])) };
  const names = [...new Set(slices.flatMap((slice) => Object.keys(slice.columns)))];
  const first = ["probability", "prediction"].filter((name) => names.includes(name));
  const choice = options($("slice-column"), [...first, ...names.filter((name) => !first.includes(name))]);
  const row = ({ name, slice }) => {
    const now = slice.columns[choice];
    const typical = !now ? "–" : now.type === "numerical" ? decimal(now.mean) : frequent({ ...now, frequent: now.frequent?.slice(0, 1) });
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, name),
      number(count(slice.events)),
      cell(typical),
      number(decimal(now?.deviation)),
      number(percent(now ? partOf(now.missing, now.count + now.missing) : null)),
      number(count(now?.bad)),
    );
  };
  const named = slices.map((slice) => ({ name: sliceName(slice), slice }));
  named.sort((a, b) => Boolean(a.slice.attribute) - Boolean(b.slice.attribute) || a.name.localeCompare(b.name, "en", { numeric: true }));
  const all = [{ name: "the whole window", slice: whole }, ...named];
  rows(table, all, row, 6, "");
}

/** Fill a select, keep what was chosen, and give back the choice. */
function options(select, names, words = {}) {
  const chosen = names.includes(select.value) ? select.value : names[0];
  if (JSON.stringify([...select.options].map((each) => each.value)) !== JSON.stringify(names)) {
    select.replaceChildren(...names.map((name) => element("option", { value: name }, words[name] ?? name)));
  }
  select.value = chosen;
  return chosen;
}

const RATE_WORDS = { selection_rate: "selection rate", true_positive_rate: "true positive rate", false_positive_rate: "false positive rate", mae: "mean absolute error", bias: "bias" };
const RATE_HEADS = ["Selected", "True positives", "False positives", "Accuracy"];
const ERROR_HEADS = ["Mean absolute error", "Bias", "Root mean squared", ""];
const crossed = (attribute) => attribute.includes(" x ");

function drawGroups(table, { groups, fairness }) {
  $("groups-section").hidden = !groups.length;
  if (!groups.length) return;
  const { cohort, limits } = fairness;
  const who = fairness.version ? `version ${fairness.version}` : fairness.arm;
  $("groups-hint").textContent = `Answers of ${who} from ${day(cohort.start)} to ${day(cohort.end)}${fairness.closed ? "" : ", still open"}, with 95 % intervals. Groups of fewer than ${count(limits.min_group_examples)} examples are not judged.`;
  const both = groups.some((group) => crossed(group.attribute));
  $("crossed").parentElement.hidden = !both;
  const shown = groups.filter((group) => $("crossed").checked || !crossed(group.attribute));
  const errors = groups.some(isError);
  [...table.tHead.rows[0].cells].slice(3).forEach((head, index) => (head.textContent = (errors ? ERROR_HEADS : RATE_HEADS)[index]));
  const most = Math.max(1e-9, ...shown.map((group) => group.mae_interval?.upper ?? group.metrics.mae ?? 0));
  const lean = Math.max(1e-9, ...shown.flatMap((group) => (group.bias_interval ? [Math.abs(group.bias_interval.lower), Math.abs(group.bias_interval.upper)] : [Math.abs(group.metrics.bias ?? 0)])));
  const figures = (group) =>
    errors
      ? [
          cell(share(group.metrics.mae, group.mae_interval, { high: most, say: short })),
          cell(share(group.metrics.bias, group.bias_interval, { low: -lean, high: lean, say: short })),
          cell(short(group.metrics.rmse)),
          cell(null),
        ]
      : [
          cell(share(group.selection_rate, group.selection_interval)),
          cell(share(group.true_positive_rate, group.true_positive_interval)),
          cell(share(group.false_positive_rate, group.false_positive_interval)),
          cell(share(group.accuracy, group.accuracy_interval)),
        ];
  const row = (group) =>
    element(
      "tr",
      { class: group.judged ? null : "small" },
      cell(group.attribute),
      element("th", { scope: "row" }, group.group, group.judged ? null : element("small", { title: "too few examples" }, " too few")),
      number(count(group.examples)),
      ...figures(group),
    );
  rows(table, shown, row, 7, "");
}

function drawGaps(table, { fairness }) {
  if (!fairness) return;
  const { limits, comparisons } = fairness;
  const kinds = [...new Set(comparisons.map((each) => each.rate))];
  $("gap-rate").parentElement.hidden = !kinds.length;
  if (!kinds.length) {
    $("gaps-hint").textContent = "";
    rows(table, [], null, 6, "There are no two groups large enough to compare.");
    return;
  }
  const rate = options($("gap-rate"), kinds, RATE_WORDS);
  const isFigure = rate === "mae" || rate === "bias";
  const say = isFigure ? short : null;
  const limit = { mae: limits.max_mae_difference, bias: limits.max_bias_difference }[rate];
  const judged = limits.alert && (isFigure ? known(limit) : limits.rates.includes(rate));
  const rules = isFigure ? [known(limit) ? `at most ${short(limit)} apart` : null].filter(Boolean) : [known(limits.max_difference) ? `at most ${+(100 * limits.max_difference).toFixed(1)} points apart` : null, known(limits.min_ratio) ? `a ratio of at least ${limits.min_ratio}` : null].filter(Boolean);
  const asked = judged && rules.length ? `The spec asks for ${rules.join(" and ")}.` : `The spec sets no limit for the ${RATE_WORDS[rate]}.`;
  const held = ` Each interval holds at ${percent(comparisons[0].confidence, 2)}, so that all that are judged hold together at ${percent(1 - limits.error_rate, 0)}.`;
  $("gaps-hint").textContent = asked + held;
  const mine = comparisons.filter((each) => each.rate === rate && ($("crossed").checked || !crossed(each.attribute) || each.over.length));
  mine.sort((a, b) => b.over.length - a.over.length || Math.abs(b.difference) - Math.abs(a.difference));
  const reach = Math.max(isFigure ? 1e-9 : 0.1, ...mine.flatMap((each) => [Math.abs(each.difference_interval.lower), Math.abs(each.difference_interval.upper)]));
  const ratio = (each) => {
    const upper = known(each.ratio_interval.upper) ? each.ratio_interval.upper.toFixed(2) : "∞";
    return element("span", {}, known(each.ratio) ? each.ratio.toFixed(2) : "–", element("small", {}, ` [${each.ratio_interval.lower.toFixed(2)}, ${upper}]`));
  };
  const row = (each) =>
    element(
      "tr",
      {},
      cell(each.attribute),
      element("th", { scope: "row" }, each.group),
      cell(each.reference),
      cell(share(each.difference, each.difference_interval, { low: -reach, high: reach, say, className: each.over.length ? "worse" : "" })),
      cell(ratio(each)),
      cell(each.over.length ? badge("over the limit", each.over.join(" and ")) : judged && rules.length ? badge("within") : null),
    );
  rows(table, mine, row, 6, "There are no two groups large enough to compare.");
}

function feed(list, entries, entry, nothing) {
  list.replaceChildren(...(entries.length ? entries.map(entry) : [element("li", { class: "none" }, nothing)]));
}

function story(alert) {
  const told = alert.story;
  if (!told) return null;
  const end = told.version ? ` → version ${told.version}, now ${told.stage}` : "";
  return element("small", {}, `led to training ${told.run_id}: ${told.training}${end}`);
}

function drawAlerts(list, { model, alerts }) {
  const entry = (alert) => {
    const muted = alert.muted_by ? badge("muted", `by ${alert.muted_by} until ${moment(alert.muted_until)}`) : null;
    const command = `tailrace mute ${model} --kind ${alert.kind} --subject '${alert.subject.replaceAll("'", "'\\''")}' --until 7d --reason "…"`;
    const evidence = element(
      "details",
      { "data-key": alert.alert_id },
      element("summary", {}, "evidence"),
      element("p", {}, element("small", {}, `${alert.statistic} ${decimal(alert.value)} against ${decimal(alert.threshold)}; since ${moment(alert.since)}; computed from`)),
      element("code", {}, ranges(alert.derived_from) || "no log range"),
      alert.muted_by ? null : element("p", {}, element("small", {}, "not to be told of it for a week:"), element("code", {}, command)),
    );
    return element(
      "li",
      { "data-kind": alert.kind, class: alert.muted_by ? "muted" : null },
      element("div", { class: "head" }, badge(alert.kind), element("strong", {}, alert.subject), muted, time(alert.time)),
      element("p", {}, alert.message),
      story(alert),
      alert.muted_by ? element("small", {}, `muted by ${alert.muted_by} until ${moment(alert.muted_until)}`) : null,
      evidence,
    );
  };
  const open = new Set([...list.querySelectorAll("details[open]")].map((each) => each.dataset.key));
  feed(list, alerts, entry, "Nothing has moved.");
  for (const each of list.querySelectorAll("details")) each.open = open.has(each.dataset.key);
}

function drawMutes(list, { model, mutes }) {
  $("mutes-section").hidden = !mutes.length;
  const entry = (mute) => {
    const what = `${mute.kinds.length ? mute.kinds.join(", ") : "every alert"}${mute.subjects.length ? ` about ${mute.subjects.join(", ")}` : ""}`;
    return element(
      "li",
      {},
      element("div", { class: "head" }, element("strong", {}, what), element("small", {}, `until ${moment(mute.until)}`)),
      element("p", {}, mute.reason),
      element("small", {}, `owned by ${mute.owner}; end it with `, element("code", {}, `tailrace unmute ${model} ${mute.mute_id} --reason …`)),
    );
  };
  feed(list, mutes, entry, "");
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

function gates(version) {
  return (version.gates || []).map((gate) =>
    element("div", {}, element("span", { class: `badge ${gate.state}`, title: gate.reason }, `${gate.gate} ${gate.state}`)),
  );
}

function drawVersions(table, versions) {
  const row = (version) =>
    element(
      "tr",
      {},
      cell(version.continual ? `${version.version}.${version.revision}` : String(version.version)),
      cell(badge(version.stage)),
      cell(element("div", {}, ...gates(version))),
      cell(version.learner),
      number(count(version.examples)),
      cell(element("code", {}, version.trained_on.join(", "))),
      cell(time(version.time)),
    );
  rows(table, versions, row, 7, "No version yet.");
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

let latest = null;

function show(page) {
  latest = page;
  const { models, model } = page;
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
    const words = model.description.replace(/([^.!?…])$/, "$1.");
    place.textContent = `${words ? `${words} ` : ""}Owned by ${model.owner}; spec revision ${model.spec_revision}.`;
  });
  const total = models.find((each) => each.model === model.model)?.alerts ?? model.alerts.length;
  part("tiles", { ...pick(model, ["served", "labelled_examples", "arms", "trainings", "alerts"]), alerts_total: total }, drawTiles);
  part("deployment", model.deployment, (place) => (place.textContent = model.deployment?.reason ?? ""));
  part("arms", model.arms, drawArms);
  part("chart", pick(model, ["cohorts", "estimates"]), drawChart);
  part("doubts", model.estimates, drawDoubts);
  part("cohorts", pick(model, ["cohorts", "estimates"]), drawCohorts);
  part("coverage", model.coverage, drawCoverage);
  part("alerts", pick(model, ["model", "alerts"]), drawAlerts);
  const inForce = model.mutes.filter((mute) => Date.parse(mute.until) > Date.now());
  part("mutes", { model: model.model, mutes: inForce }, drawMutes);
  part("trainings", model.trainings, drawTrainings);
  const window = model.window;
  part("window", Boolean(window), (place) => {
    place.textContent = window ? "Distances of the newest closed window, those nearest to their threshold first; the history is of the last 24, against the threshold of each." : "";
  });
  part("quality-hint", window && pick(window, ["start", "end", "events", "closed"]), (place) => {
    place.textContent = window ? `${window.closed ? "Closed" : "Open"} window ${day(window.start)} to ${day(window.end)}, ${count(window.events)} events.` : "";
  });
  part("columns", model.columns, drawColumns);
  part("quality", model.columns, drawQuality);
  part("slices", pick(model, ["window", "columns"]), drawSlices);
  part("groups", pick(model, ["groups", "fairness"]), drawGroups);
  part("gaps", pick(model, ["fairness"]), drawGaps);
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

function chosen() {
  for (const id of ["slices", "groups", "gaps"]) drawn.delete(id);
  if (latest) show(latest);
}
for (const id of ["slice-column", "crossed", "gap-rate"]) $(id).addEventListener("change", chosen);

show(JSON.parse($("data").textContent));
poll();
