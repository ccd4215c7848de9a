// The page: its parts in reading order, the controls above them, and what a live page hears.

const PARTS = [
  [
    "known",
    "Known",
    () =>
      head.runs.length && head.runs.every((run) => run.status === "completed")
        ? "What was known in the end"
        : "What is known so far",
    endings,
  ],
  ["datamodel", "Datamodels", "What each fact did to the answers", datamodels],
  ["attribution", "Attribution", "What methods of attribution find and predict", attributions],
  [
    "epochs",
    "Over epochs",
    () =>
      head.groups.length && head.groups.every((group) => askedOnce(group))
        ? "What was answered, by kind of question"
        : "When it came to be known",
    overEpochs,
  ],
  ["relations", "By relation", "By relation", byRelation],
  ["forms", "By question", "By type of question", byForm],
  ["examples", null, "With and without examples before the question", byExamples],
  ["sets", "Every set", "Every set at every evaluation", heat],
  ["questions", "Questions", "Every question", questions],
  ["confusions", "Confusions", "What was taken for what", confusions],
  ["training", "Training", "Losses of training", trainingPart],
  ["resources", "Time, memory, disk", "Time, memory, disk", resources],
  ["runs", "Runs", "The runs", runTable],
  ["failures", "Failures", "What did not end well", failures],
  ["replay", "Run it again", "How to run it again", replayPart],
];
const OF_GROUP = new Set([
  "relations",
  "forms",
  "examples",
  "sets",
  "questions",
  "confusions",
  "training",
  "resources",
  "replay",
]);
const OF_METRIC = ["epochs", "relations", "forms", "examples", "sets"];
let setsByName = new Map();

/** Sweeps over subsets and tables of scores are rare: without them their parts are no parts. */
const isThere = (id) =>
  (id !== "datamodel" || head.datamodels.length > 0) &&
  (id !== "attribution" || head.attributions.length > 0);

function redraw(name) {
  const [id, , title, draw] = PARTS.find(([known]) => known === name);
  const part = document.getElementById(id);
  part.hidden = !isThere(id);
  if (part.hidden) return part.replaceChildren();
  const group =
    head.groups.length > 1 && OF_GROUP.has(id)
      ? el("p", { class: "kicker" }, head.groups[state.group].name)
      : null;
  part.replaceChildren(el("h2", {}, typeof title === "function" ? title() : title), group || "");
  if (OF_GROUP.has(id) && !head.groups.length)
    return add(part, el("p", { class: "unknown" }, "No run has begun yet."));
  try {
    draw(part);
  } catch (error) {
    part.append(el("p", { class: "failed" }, `This part could not be drawn: ${error}`));
    console.error(error);
  }
}

function redrawAll() {
  const focused = document.activeElement,
    kept = focused && focused !== document.body ? pathTo(focused) : null;
  const top = document.getElementById("top");
  top.replaceChildren();
  overview(top);
  tools();
  for (const [name] of PARTS) redraw(name);
  if (kept) {
    const again = document.querySelector(kept.selector);
    if (again) {
      again.focus({ preventScroll: true });
      if (kept.caret !== null) again.setSelectionRange(kept.caret, kept.caret);
    }
  }
}

/** Where the reader's focus is, so that it is there again when the page has been drawn anew. */
function pathTo(node) {
  const part = node.closest("[id]"),
    caret = node.type === "search" ? node.selectionStart : null;
  for (const name of ["data-question", "data-sort", "aria-label"])
    if (node.hasAttribute(name))
      return {
        selector: `[${name}="${CSS.escape(node.getAttribute(name)).replaceAll('"', '\\"')}"]`,
        caret,
      };
  return { selector: part && part.id ? `#${part.id}` : "body", caret };
}

function tools() {
  const bar = document.getElementById("tools");
  const groups =
    head.groups.length > 1
      ? choice(
          "group",
          state.group,
          head.groups.map((group, i) => [i, group.name]),
          (value) => {
            Object.assign(state, {
              group: Number(value),
              page: 0,
              table: 0,
              set: "",
              asked: "",
              relation: "",
            });
            for (const name of OF_GROUP) redraw(name);
          },
        )
      : null;
  const metrics = head.metrics.length
    ? choice(
        "metric",
        state.metric,
        head.metrics.map((metric) => [metric.key, metric.label]),
        (value) => {
          state.metric = value;
          for (const name of OF_METRIC) redraw(name);
        },
      )
    : null;
  const theme = el(
    "button",
    {
      type: "button",
      id: "theme",
      "aria-label": "light or dark",
      onclick: () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"),
    },
    "◐",
  );
  bar.replaceChildren(
    el(
      "div",
      {},
      el(
        "nav",
        { "aria-label": "parts" },
        PARTS.filter(([id, short]) => short && isThere(id)).map(([id, short]) => el("a", { href: `#${id}` }, short)),
      ),
      groups || "",
      metrics || "",
      el("span", { id: "live", hidden: true }),
      theme,
    ),
  );
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
}

async function unpacked(text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function take(newHead, newDetail) {
  const chosen = head && head.groups[state.group] ? head.groups[state.group].name : null;
  head = newHead;
  detail = newDetail;
  const again = head.groups.findIndex((group) => group.name === chosen);
  if (again >= 0) state.group = again;
  setsByName = new Map(head.sets.map((one) => [one.name, one]));
  if (!state.metric) state.metric = head.main_metric;
  state.group = Math.min(state.group, Math.max(0, head.groups.length - 1));
}

async function begin() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  setTheme(dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => setTheme(dark.matches ? "dark" : "light"));
  take(JSON.parse(document.getElementById("head-data").textContent), null);
  redrawAll();
  try {
    detail = await unpacked(document.getElementById("detail-data").textContent);
    for (const name of ["sets", "questions", "confusions"]) redraw(name);
  } catch (error) {
    for (const name of ["sets", "questions", "confusions"])
      document
        .getElementById(name)
        .append(el("p", { class: "failed" }, `This browser cannot unpack the questions: ${error}`));
  }
  document.documentElement.dataset.ready = "yes";
  if (document.documentElement.dataset.live) listen();
}
