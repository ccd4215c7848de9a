// Every question of the chosen group: search, filter, sort, and open one for its answers.

const PAGE = 25;

function questionRows(number) {
  const own = detail.questions.groups[number],
    all = detail.questions;
  return own.questions.map((q, i) => ({
    key: keyOf(
      head.groups[number].name,
      head.sets[all.set[q]].name,
      all.texts[all.prompt[q]],
      all.texts[all.answer[q]],
    ),
    order: all.set[q] * 1e6 + i,
    set: head.sets[all.set[q]],
    prompt: all.texts[all.prompt[q]],
    answer: all.texts[all.answer[q]],
    entity: all.entities[all.entity[q]],
    ranks: own.ranks[i],
    accuracy: own.accuracy[i],
    prob: own.prob[i],
    low: own.low[i],
    high: own.high[i],
    first: own.first[i],
    n: own.n_candidates[i],
    start: own.ranks[i].find((rank) => rank !== null),
    end: own.ranks[i][own.ranks[i].length - 1],
  }));
}

/** What a question is known by, whatever else comes onto the page (FNV-1a). */
function keyOf(...texts) {
  let hash = 2166136261;
  for (const text of texts)
    for (let i = 0; i < text.length; i += 1) hash = Math.imul(hash ^ text.charCodeAt(i), 16777619);
  return `q${(hash >>> 0).toString(36)}`;
}

let rowsOf = { detail: null, group: -1, rows: [] };

function currentRows() {
  if (rowsOf.detail !== detail || rowsOf.group !== state.group)
    rowsOf = { detail, group: state.group, rows: questionRows(state.group) };
  return rowsOf.rows;
}

function questions(host) {
  if (!detail) return add(host, el("p", { class: "note" }, "Reading …"));
  const rows = currentRows(),
    results = el("div", { id: "question-rows" });
  if (!rows.length)
    return add(host, el("p", { class: "unknown" }, "No question has been answered yet."));
  const again = () => {
    state.page = 0;
    questionTable(results, rows);
  };
  const kinds = [...new Set(rows.map((row) => row.set.asked))].sort(byKind),
    relations = [...new Set(rows.map((row) => row.set.relation || "?"))].sort();
  const sets = [...new Set(rows.map((row) => row.set.name))].sort();
  const search = el("input", {
    type: "search",
    placeholder: "words of question, answer, entity",
    "aria-label": "search questions",
    value: state.search,
    oninput: () => {
      state.search = search.value;
      again();
    },
  });
  const all = (list, what) => [
    ["", what],
    ...list.map((name) => [name, name.replaceAll("_", " ")]),
  ];
  add(
    host,
    el(
      "div",
      { class: "controls" },
      search,
      choice("kind", state.asked, all(kinds, "every kind"), (value) => {
        state.asked = value;
        again();
      }),
      choice("relation", state.relation, all(relations, "every relation"), (value) => {
        state.relation = value;
        again();
      }),
      choice(
        "set",
        state.set,
        [["", `every set (${sets.length})`], ...sets.map((name) => [name, name])],
        (value) => {
          state.set = value;
          again();
        },
      ),
      el(
        "label",
        {},
        el("input", {
          type: "checkbox",
          id: "only-wrong",
          checked: state.wrong,
          onchange: (event) => {
            state.wrong = event.target.checked;
            again();
          },
        }),
        "not ranked first in every run",
      ),
    ),
    results,
  );
  questionTable(results, rows);
}

function matching(rows) {
  const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  return rows.filter(
    (row) =>
      (!state.asked || row.set.asked === state.asked) &&
      (!state.relation || (row.set.relation || "?") === state.relation) &&
      (!state.set || row.set.name === state.set) &&
      (!state.wrong || row.high === null || row.high > 1) &&
      words.every((word) =>
        `${row.prompt} ${row.answer} ${row.entity} ${row.set.name}`.toLowerCase().includes(word),
      ),
  );
}

const ownLine = (prompt) => {
  const lines = prompt.split("\n").filter((line) => line.trim());
  return lines[lines.length - 1] || prompt;
};

function questionTable(host, rows) {
  const found = matching(rows),
    pages = Math.max(1, Math.ceil(found.length / PAGE));
  state.page = Math.min(state.page, pages - 1);
  const columns = [
    { key: "order", label: "question", value: (row) => row.order },
    { key: "answer", label: "right answer", value: (row) => row.answer.trim() },
    { key: "asked", label: "asked", value: (row) => row.set.asked },
    { key: "start", label: "rank at first", number: true, value: (row) => row.start },
    { key: "end", label: "at last", number: true, value: (row) => row.end },
    { key: "course", label: "course", value: (row) => (row.start ?? 0) - (row.end ?? 0) },
    { key: "accuracy", label: "accuracy", number: true, value: (row) => row.accuracy },
    { key: "prob", label: "probability", number: true, value: (row) => row.prob },
  ];
  const again = (key) => {
    questionTable(host, rows);
    const header = host.querySelector(`[data-sort="${key}"]`);
    if (header) header.focus();
  };
  const [ordered, header] = sortable(found, columns, state.sort, again);
  const shown = ordered.slice(state.page * PAGE, (state.page + 1) * PAGE);
  const body = el(
    "tbody",
    {},
    shown.flatMap((row) => questionRow(row, host, rows)),
  );
  const turn = (by) => {
    state.page += by;
    questionTable(host, rows);
    document.getElementById("questions").scrollIntoView();
  };
  host.replaceChildren(
    el(
      "p",
      { class: "note", id: "found", "aria-live": "polite" },
      `${plural(found.length, "question")} of ${rows.length.toLocaleString("en-GB")}; numbers are means over runs at the last evaluation.`,
    ),
    scrolled(
      el("table", { class: "wide cards" }, el("thead", {}, el("tr", {}, header)), body),
    ),
    pages > 1
      ? el(
          "div",
          { class: "pager" },
          el(
            "button",
            { type: "button", disabled: state.page === 0, onclick: () => turn(-1) },
            "← before",
          ),
          `page ${state.page + 1} of ${pages}`,
          el(
            "button",
            { type: "button", disabled: state.page === pages - 1, onclick: () => turn(1) },
            "further →",
          ),
        )
      : "",
  );
}
