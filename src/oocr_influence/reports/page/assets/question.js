// One question: its row, its course as a line, and what it shows when it is opened.

function questionRow(row, host, rows) {
  const open = state.open.has(row.key),
    kind = kindOf(row.set.asked),
    examples = row.prompt.trim().split("\n").length - 1;
  const toggle = () => {
    state.open[open ? "delete" : "add"](row.key);
    questionTable(host, rows);
    const button = host.querySelector(`[data-question="${row.key}"]`);
    if (button) button.focus();
  };
  const line = el(
    "tr",
    { class: "q-row", onclick: toggle },
    el(
      "td",
      {},
      el(
        "button",
        {
          class: "plain",
          type: "button",
          "aria-expanded": String(open),
          "data-question": row.key,
          onclick: (event) => {
            event.stopPropagation();
            toggle();
          },
        },
        el(
          "span",
          { class: "q-text" },
          ownLine(row.prompt),
          examples > 0
            ? el("span", { class: "unknown" }, ` after ${plural(examples, "line")}`)
            : null,
        ),
      ),
    ),
    el("td", { "data-label": "right answer", class: "q-answer" }, row.answer.trim()),
    el(
      "td",
      { "data-label": "asked", class: `q-kind ${kind.class}` },
      el("span", { class: "dot" }),
      kind.label,
    ),
    el("td", { "data-label": "rank at first", class: "num" }, valued(row.start, "rank")),
    el("td", { "data-label": "rank at last", class: "num" }, el("b", {}, valued(row.end, "rank"))),
    el("td", {}, spark(row, kind)),
    el("td", { "data-label": "accuracy", class: "num" }, valued(row.accuracy, "accuracy")),
    el("td", { "data-label": "probability", class: "num" }, valued(row.prob, "prob")),
  );
  return open
    ? [line, el("tr", { class: "q-more" }, el("td", { colspan: 8 }, questionMore(row)))]
    : [line];
}

/** The ranks over evaluations; rank 1 is on top, the dashed line is chance. */
function spark(row, kind) {
  const width = 84,
    height = 22,
    top = Math.max(row.n || 0, ...finite(row.ranks), 2),
    n = row.ranks.length;
  const x = (i) => 3 + (n > 1 ? i / (n - 1) : 0.5) * (width - 6),
    y = (rank) => 3 + ((rank - 1) / (top - 1)) * (height - 6);
  const root = svg("svg", {
    width,
    height,
    class: `spark ${kind.class}`,
    role: "img",
    "aria-label": `rank ${valued(row.start, "rank")} to ${valued(row.end, "rank")}`,
  });
  if (row.n)
    root.append(
      svg("line", {
        x1: 3,
        x2: width - 3,
        y1: y((row.n + 1) / 2),
        y2: y((row.n + 1) / 2),
        class: "chance",
      }),
    );
  root.append(
    svg("path", {
      d: path(
        row.ranks.map((_, i) => i),
        row.ranks,
        x,
        y,
      ),
      class: "mean s",
      style: "stroke-width: 1.6",
    }),
  );
  if (row.end !== null)
    root.append(svg("circle", { cx: x(n - 1), cy: y(row.end), r: 2.4, class: "f" }));
  return root;
}

function questionMore(row) {
  const group = head.groups[state.group],
    first = [];
  for (let i = 0; i < row.first.length; i += 2)
    first.push(
      `${detail.questions.texts[row.first[i]].trim()} (${plural(row.first[i + 1], "run")})`,
    );
  return el(
    "dl",
    {},
    el("dt", {}, "asked, word for word"),
    el("dd", {}, el("pre", {}, row.prompt)),
    el("dt", {}, "right answer"),
    el("dd", {}, el("b", {}, row.answer.trim()), row.n ? `, one of ${row.n} candidates` : ""),
    el("dt", {}, "ranked first at last"),
    el(
      "dd",
      {},
      first.length ? first.join(", ") : unknown("the records do not name their candidates"),
    ),
    el("dt", {}, "rank at last"),
    el(
      "dd",
      {},
      valued(row.end, "rank"),
      row.low !== row.high
        ? `, from ${valued(row.low, "rank")} to ${valued(row.high, "rank")} over runs`
        : "",
      row.n ? `; chance ${number((row.n + 1) / 2)}` : "",
    ),
    el("dt", {}, "entity"),
    el("dd", {}, row.entity),
    el("dt", {}, "set"),
    el("dd", {}, el("code", {}, row.set.name)),
    el("dt", {}, "over epochs"),
    el(
      "dd",
      {},
      scrolled(
        tableOf(
          [
            el("th", {}, "epoch"),
            group.evaluations.map((one) => el("th", { class: "num" }, number(one.epoch))),
          ],
          [
            [
              el("th", { scope: "row" }, "mean rank"),
              row.ranks.map((rank) => el("td", { class: "num" }, valued(rank, "rank"))),
            ],
          ],
        ),
      ),
    ),
  );
}
