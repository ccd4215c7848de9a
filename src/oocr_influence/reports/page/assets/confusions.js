// Which answer was ranked first where another was right.

function confusions(host) {
  if (!detail) return add(host, el("p", { class: "note" }, "Reading …"));
  const tables = detail.questions.groups[state.group].confusions;
  if (!tables.length)
    return add(
      host,
      el(
        "p",
        { class: "unknown" },
        "The records do not name their candidates with their scores: nothing is known of confusions.",
      ),
    );
  const at = Math.min(state.table, tables.length - 1),
    table = tables[at];
  const name = (one) =>
    `${one.relation.replaceAll("_", " ")}, ${kindOf(one.asked).label}${one.form === "default" ? "" : ` (${one.form.replaceAll("_", " ")})`}`;
  add(
    host,
    el(
      "div",
      { class: "controls" },
      choice(
        "questions",
        at,
        tables.map((one, i) => [i, name(one)]),
        (value) => {
          state.table = Number(value);
          redraw("confusions");
        },
      ),
    ),
  );
  const box = el("div", { class: "scroll" }),
    readout = el(
      "p",
      { class: "readout", "aria-live": "polite" },
      "Point at a square, or focus the figure and press the arrow keys.",
    );
  add(
    host,
    el(
      "figure",
      {},
      box,
      readout,
      el(
        "figcaption",
        {},
        `How to read: a row an answer that was right, a column the answer that was ranked first instead; columns stand in the order of the rows. The fuller a square, the larger its share of the row. ` +
          `Blue on the diagonal is right: ${number(table.n_right, 6)} of ${number(table.n, 6)} (${((100 * table.n_right) / table.n).toFixed(0)} %), over all wordings${head.groups[state.group].n_runs > 1 ? " and runs" : ""}; by chance it would be 1 of ${table.n_answers}. ` +
          `A dark column is an answer that the model prefers whatever is asked.` +
          (table.n_answers > table.answers.length
            ? ` Shown are the ${table.answers.length} of ${table.n_answers} answers that were missed most often.`
            : ""),
      ),
    ),
  );
  const draw = () => box.replaceChildren(confusionSvg(box.clientWidth || 600, table, readout));
  draw();
  observe(box, draw);
  add(
    host,
    folded("confusion-list", "The most frequent confusions in words", () => confusionList(table)),
  );
}

const textOf = (table, place) => detail.questions.texts[table.answers[place]].trim();

function confusionSvg(width, table, readout) {
  const n = table.answers.length,
    names = table.answers.map((_, i) => textOf(table, i));
  const narrow = width < 560,
    longest = Math.max(...names.map((name) => name.length));
  const room = Math.min(longest * 6.4 + 34, width * (narrow ? 0.42 : 0.38)),
    most = Math.floor((room - 34) / 6.4);
  const size = Math.max(n > 40 ? 7 : 9, Math.min(34, (width - room - 10) / n));
  const top = 34,
    height = top + n * size + 12,
    right = room + n * size + 10;
  const root = svg("svg", {
    width: Math.max(right, 200),
    height,
    viewBox: `0 0 ${Math.max(right, 200)} ${height}`,
    tabindex: 0,
    role: "img",
    style: "max-width: none",
    "aria-label": "right answers against those ranked first",
  });
  root.append(svg("text", { x: room + 2, y: 11 }, "ranked first →"));
  const totals = names.map(() => 0),
    every = Math.ceil(13 / size);
  for (const [r, , count] of table.cells) totals[r] += count;
  names.forEach((name, i) => {
    const y = top + (i + 0.5) * size + 4;
    if (i % every === 0)
      root.append(
        svg(
          "text",
          { x: room - 8, y, "text-anchor": "end" },
          `${name.length > most ? name.slice(0, most - 1) + "…" : name}  ${i + 1}`,
        ),
        svg("text", { x: room + (i + 0.5) * size, y: top - 8, "text-anchor": "middle" }, i + 1),
      );
    root.append(
      svg("line", {
        x1: room,
        x2: room + n * size,
        y1: top + i * size,
        y2: top + i * size,
        class: "grid",
      }),
      svg("line", {
        y1: top,
        y2: top + n * size,
        x1: room + i * size,
        x2: room + i * size,
        class: "grid",
      }),
    );
  });
  const squares = table.cells.map(([r, c, count]) => {
    const share = totals[r] ? count / totals[r] : 0,
      side = Math.max(2, Math.sqrt(share) * (size - 2));
    const square = svg("rect", {
      x: room + (c + 0.5) * size - side / 2,
      y: top + (r + 0.5) * size - side / 2,
      width: side,
      height: side,
      style: `fill: var(--${r === c ? "trained" : "reversed"})`,
    });
    root.append(square);
    return {
      square,
      text: [
        el("b", {}, names[r]),
        r === c ? " was ranked first where it was right: " : " was right, ",
        r === c ? "" : el("b", {}, names[c]),
        r === c ? "" : " was ranked first: ",
        `${number(count, 6)} of ${number(totals[r], 6)}`,
      ],
    };
  });
  readSquares(root, squares, readout);
  return root;
}

function readSquares(root, squares, readout) {
  let at = -1;
  const show = (place) => {
    if (at >= 0) squares[at].square.style.stroke = "";
    at = (place + squares.length) % squares.length;
    squares[at].square.style.stroke = "var(--ink)";
    readout.replaceChildren(...squares[at].text);
  };
  squares.forEach(({ square }, place) =>
    square.addEventListener("pointerenter", () => show(place)),
  );
  root.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    show(at + step);
  });
}

function confusionList(table) {
  const wrong = table.cells
    .filter(([r, c]) => r !== c)
    .sort((a, b) => b[2] - a[2])
    .slice(0, 20);
  if (!wrong.length) return el("p", { class: "note" }, "There was none.");
  return scrolled(
    tableOf(
      [
        ["right", "ranked first"].map((name) => el("th", {}, name)),
        el("th", { class: "num" }, "times"),
      ],
      wrong.map(([r, c, count]) => [
        el("td", {}, textOf(table, r)),
        el("td", {}, textOf(table, c)),
        el("td", { class: "num" }, number(count, 6)),
      ]),
    ),
  );
}
