// Small things that every part uses: elements, numbers as text, what the reader has chosen.
let head,
  detail = null;

const state = {
  group: 0,
  metric: null,
  table: 0,
  page: 0,
  search: "",
  asked: "",
  relation: "",
  set: "",
  wrong: false,
  sort: { key: "order", down: false },
  runSort: { key: "order", down: false },
  open: new Set(),
  chosen: new Map(),
  unfolded: new Set(),
};

const SVG = "http://www.w3.org/2000/svg";

/** An element; attributes whose name begins with "on" are listeners; null children are left out. */
function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat(2))
    if (child !== null && child !== undefined) node.append(child);
  return node;
}

/** Append what there is; null is nothing. */
const add = (host, ...children) => fill(host, {}, children);

const unknown = (words = "not recorded") => el("span", { class: "unknown" }, words);

function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en-GB");
  if (value !== 0 && Math.abs(value) < 0.0001) return value.toExponential(1).replace("-", "−");
  return String(Number(value.toPrecision(digits))).replace("-", "−");
}

/** A value of a metric: ranks to two places, shares to two places, others as short as they are. */
function valued(value, key) {
  if (value === null || value === undefined) return "–";
  const fixed = /rank|accuracy|^prob$|beam/.test(key) && (Math.abs(value) >= 0.005 || value === 0);
  return fixed ? value.toFixed(2) : number(value);
}

function bytes(n) {
  if (n === null || n === undefined) return "–";
  for (const [unit, one] of [
    ["TB", 1e12],
    ["GB", 1e9],
    ["MB", 1e6],
    ["kB", 1e3],
  ])
    if (n >= one) return `${(n / one).toPrecision(n / one >= 100 ? 3 : 2)} ${unit}`;
  return `${n} B`;
}

function gibibytes(n) {
  return n === null || n === undefined ? "–" : `${(n / 2 ** 30).toFixed(2)} GiB`;
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 60) return `${number(seconds, 2)} s`;
  const whole = Math.round(seconds),
    two = (n) => String(n).padStart(2, "0");
  const hours = Math.floor(whole / 3600),
    minutes = Math.floor(whole / 60) % 60;
  return hours
    ? `${hours}:${two(minutes)}:${two(whole % 60)} h`
    : `${minutes}:${two(whole % 60)} min`;
}

const plural = (n, thing) => `${n.toLocaleString("en-GB")} ${thing}${n === 1 ? "" : "s"}`;

/** What a kind is drawn as: its class, its short name, whether its line is dashed. */
function kindOf(asked) {
  const [kind, rest] = asked.split(": ");
  if (kind === "trained")
    return { class: rest ? "k-forms" : "k-trained", label: rest || "trained", dashed: !!rest };
  if (kind === "control")
    return { class: "k-control", label: `control, ${rest || "all"}`, dashed: rest === "untold" };
  const known = ["reversed", "first_hop", "two_hop", "unseen", "pretraining"].includes(kind);
  return {
    class: known ? `k-${kind}` : "k-other",
    label: asked.replaceAll("_", "-"),
    dashed: false,
  };
}

const metricOf = (key) => head.metrics.find((metric) => metric.key === key);

/** The metric chosen, or the nearest that a group has. */
function metricFor(lines) {
  const has = (key) => lines.some((line) => line.series[key]);
  if (has(state.metric)) return metricOf(state.metric);
  return (
    [metricOf(head.main_metric), ...head.metrics].find((metric) => metric && has(metric.key)) ||
    null
  );
}

function choice(label, value, options, onchange, attributes = {}) {
  const select = el(
    "select",
    { ...attributes, "aria-label": label, onchange: () => onchange(select.value) },
    options.map(([key, text]) =>
      el("option", { value: key, selected: String(key) === String(value) }, text),
    ),
  );
  return el("label", {}, el("span", {}, label), select);
}

/** A choice that is remembered by its label, over what `draw(host, value)` draws of it. */
function chosenOf(key, label, options, draw) {
  const host = el("div", {});
  const known = options.some(([value]) => value === state.chosen.get(key));
  const show = (value) => {
    state.chosen.set(key, value);
    host.replaceChildren();
    draw(host, value);
  };
  const first = known ? state.chosen.get(key) : options[0][0];
  if (options.length === 1) {
    show(first);
    return [host];
  }
  const bar = el("div", { class: "controls" }, choice(label, first, options, show));
  show(first);
  return [bar, host];
}

/** A part that can be unfolded, and stays so when the page is drawn anew. */
function folded(key, summary, content) {
  const box = el("details", { open: state.unfolded.has(key) }, el("summary", {}, summary));
  const show = () => {
    if (box.open && box.children.length === 1) box.append(content());
  };
  box.addEventListener("toggle", () => {
    state.unfolded[box.open ? "add" : "delete"](key);
    show();
  });
  show();
  return box;
}

const scrolled = (...parts) => el("div", { class: "scroll" }, parts);

/** A table of these cells; without any in `head` it has no header. */
function tableOf(head, rows, attributes = {}) {
  return el(
    "table",
    attributes,
    head.length ? el("thead", {}, el("tr", {}, head)) : null,
    el(
      "tbody",
      {},
      rows.map((cells) => el("tr", {}, cells)),
    ),
  );
}

/** Rows in order, and headers that sort them; columns: {key, label, number, value(row)}. */
function sortable(rows, columns, sort, again) {
  const chosen = columns.find((column) => column.key === sort.key);
  const ordered = chosen ? sorted(rows, chosen.value, sort.down) : rows;
  const header = columns.map((column) =>
    el(
      "th",
      {
        class: column.number ? "num" : null,
        scope: "col",
        "aria-sort": column.key === sort.key ? (sort.down ? "descending" : "ascending") : null,
      },
      el(
        "button",
        {
          class: "plain",
          type: "button",
          "data-sort": column.key,
          onclick: () => {
            sort.down = sort.key === column.key ? !sort.down : false;
            sort.key = column.key;
            again(column.key);
          },
        },
        column.label,
      ),
    ),
  );
  return [ordered, header];
}

/** In order of a value; what has none comes last either way. */
function sorted(rows, value, down) {
  const keyed = rows.map((row, place) => [value(row), place, row]);
  const missing = (v) => v === null || v === undefined || v === "";
  keyed.sort(([a, i], [b, j]) => {
    if (missing(a) || missing(b)) return missing(a) - missing(b) || i - j;
    const by = typeof a === "string" ? a.localeCompare(b) : a - b;
    return (down ? -by : by) || i - j;
  });
  return keyed.map(([, , row]) => row);
}
