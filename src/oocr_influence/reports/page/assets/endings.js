// What was known in the end: means with intervals, each entity a dot, the first evaluation a ring.

function endings(host) {
  const shown = head.groups
    .map((group, number) => ({ ...group.ending, group, number }))
    .filter((one) => one.kinds);
  if (!shown.length)
    return add(host, el("p", { class: "unknown" }, "No question has been answered yet."));
  const kinds = [
    ...new Set(shown.flatMap((one) => one.kinds.filter((k) => k.rank).map((k) => k.asked))),
  ].sort(byKind);
  const strict = shown.some((one) => one.metric === "rank");
  if (kinds.length) {
    const figure = el("div", {}),
      readout = el(
        "p",
        { class: "readout", "aria-live": "polite" },
        "Point at a dot, or focus the figure and press the arrow keys, to read an entity.",
      );
    add(
      host,
      el("figure", {}, figure, readout, el("figcaption", {}, endingCaption(shown, strict))),
    );
    const draw = () =>
      figure.replaceChildren(endingSvg(figure.clientWidth || 600, shown, kinds, readout));
    draw();
    observe(figure, draw);
  } else {
    add(
      host,
      el(
        "p",
        { class: "note" },
        shown.every((one) => one.group.subsets)
          ? "Runs on subsets were not asked for ranks (--subset_eval_metrics None asks for all): the share of questions answered right."
          : "No ranks are known: none were recorded, or the notices above say why they could not be read.",
      ),
    );
    accuracies(host, shown);
  }
  add(
    host,
    folded("ending-table", "The same numbers as a table", () => endingTable(shown)),
  );
}

/** Without ranks: how many questions of each kind were answered right. */
function accuracies(host, shown) {
  const rows = [];
  for (const one of shown) {
    if (shown.length > 1) rows.push({ title: one.group.name });
    for (const { asked, accuracy } of one.kinds.filter((kind) => kind.accuracy))
      rows.push({
        label: kindOf(asked).label,
        class: kindOf(asked).class,
        value: [accuracy.mean, accuracy.low, accuracy.high],
        more: ` · ${plural(accuracy.n_questions, "answer")}`,
      });
  }
  if (!rows.some((row) => row.value)) return;
  rowChart(host, { rows, xLabel: "share of right answers", metric: "accuracy", bars: true });
  add(host, el("p", { class: "note" }, intervalWords(shown)));
}

const intervalWords = (shown) =>
  shown.every((one) => one.group.subsets)
    ? "Bars reach to the mean, thin lines over its 95 % bootstrap interval over entities and subsets, the runs of a subset drawn together."
    : "Bars reach to the mean, thin lines over its 95 % bootstrap interval over entities and runs.";

const byKind = (a, b) => {
  const order = ["trained", "reversed", "first_hop", "two_hop", "control"];
  const place = (asked) => {
    const i = order.indexOf(asked.split(":")[0]);
    return i < 0 ? 9 : i;
  };
  return place(a) - place(b) || a.localeCompare(b);
};

function endingCaption(shown, strict) {
  const many = shown.some((one) => one.kinds.some((kind) => kind.rank && kind.rank.n_runs > 1));
  const read = shown
    .slice(0, 8)
    .map(
      (one) =>
        `${shown.length > 1 ? one.group.name + " " : ""}at epoch ${number(one.epoch)}, ${one.n_runs === one.group.n_runs ? plural(one.n_runs, "run") : `${one.n_runs} of ${plural(one.group.n_runs, "run")}`}`,
    );
  return (
    `Read ${read.join("; ")}${shown.length > 8 ? "; …" : ""}. How to read: each small dot is an entity, at the mean rank of the right answer over all questions of that kind about it; rank 1 is right. ` +
    `The large dot is the mean over all questions, the bar its 95 % bootstrap interval over entities${many ? (shown.some((one) => one.group.subsets) ? " and runs (on subsets: and subsets, their runs drawn together)" : " and runs") : " alone (one run says nothing about other seeds)"}${shown.some((one) => one.group.evaluations.length > 1) ? "; the ring is the same mean at the first evaluation" : ""}. ` +
    `The dashed line is chance. What ends at chance, as controls should, is not known.` +
    (strict
      ? " Where the earlier system wrote the records the rank is the strict one: ties count as better."
      : "")
  );
}

function endingSvg(width, shown, kinds, readout) {
  const several = shown.length > 1,
    narrow = width < 560;
  const step = several ? 21 : 40,
    gap = several ? 30 : 0;
  const room = {
    left: narrow ? 0 : several ? 210 : 190,
    right: narrow ? 16 : 140,
    top: 34,
    bottom: 40,
  };
  const rows = [];
  let y = room.top;
  for (const asked of kinds) {
    const own = shown
      .map((one) => ({ one, kind: one.kinds.find((kind) => kind.asked === asked && kind.rank) }))
      .filter((row) => row.kind);
    if (several || narrow) {
      rows.push({ title: asked, y: y + 14 });
      y += gap || 24;
    }
    for (const row of own) {
      const labelled = several && narrow;
      if (labelled) y += 15;
      rows.push({ ...row, asked, y: y + step / 2 });
      y += step;
    }
    y += 7;
  }
  const height = y + room.bottom,
    bottom = y;
  const values = rows.flatMap((row) =>
    row.kind
      ? [
          row.kind.chance || 1,
          row.kind.rank.high || row.kind.rank.mean,
          row.kind.rank.mean,
          startOf(row) || 1,
          ...row.kind.entities.map(([, rank]) => rank),
        ]
      : [],
  );
  const top = Math.max(2, ...values) * 1.02,
    right = width - room.right;
  const x = (v) => room.left + 8 + ((v - 1) / (top - 1)) * (right - room.left - 8);
  const root = svg("svg", {
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    tabindex: 0,
    role: "img",
    "aria-label":
      "Mean rank of the right answer by kind of question at the last evaluation, with intervals and entities",
  });
  for (const tick of [1, ...niceTicks(1, top, (right - room.left) / 85).filter((t) => t > 1.4)])
    root.append(
      svg("line", { x1: x(tick), x2: x(tick), y1: room.top - 6, y2: bottom, class: "grid" }),
      svg(
        "text",
        { x: x(tick), y: room.top - 12, "text-anchor": "middle" },
        tick === 1 && !narrow ? "1 = right" : number(tick),
      ),
    );
  root.append(
    svg(
      "text",
      { x: right, y: bottom + 22, "text-anchor": "end" },
      "mean rank of the right answer",
    ),
  );
  if (!narrow)
    root.append(svg("text", { x: width, y: room.top - 12, "text-anchor": "end" }, "mean [95 %]"));
  const dots = [];
  for (const row of rows) {
    const kind = kindOf(row.asked || row.title || "");
    if (row.title) {
      root.append(svg("text", { x: 0, y: row.y, class: `label f ${kind.class}` }, kind.label));
      continue;
    }
    if (!narrow)
      root.append(
        svg(
          "text",
          { x: width, y: row.y + 4, "text-anchor": "end" },
          intervalText(row.kind.rank, "rank"),
        ),
      );
    root.append(endingRow(row, kind, x, { several, narrow, step, left: room.left, dots }));
  }
  readDots(root, dots, readout);
  return root;
}

function startOf(row) {
  const line = row.one.group.lines.find(
    (one) => one.split === "asked" && one.asked === row.kind.asked,
  );
  const series = line && line.series[row.one.metric];
  return series && series.mean.length > 1 ? series.mean[0] : null;
}

function endingRow(row, kind, x, { several, narrow, step, left, dots }) {
  const { rank, chance, entities } = row.kind,
    y = row.y,
    group = svg("g", { class: kind.class });
  const label = several ? row.one.group.name : kind.label;
  if (several && narrow) group.append(svg("text", { x: 0, y: y - step / 2 - 2 }, label));
  else if (!narrow)
    group.append(
      ...wrapped(label, several ? 32 : 24).map((text, i, all) =>
        svg(
          "text",
          {
            x: left - 12,
            y: y + 4 + (i - (all.length - 1) / 2) * 14,
            "text-anchor": "end",
            class: several ? "" : "label f",
          },
          text,
        ),
      ),
    );
  if (chance)
    group.append(
      svg("line", {
        x1: x(chance),
        x2: x(chance),
        y1: y - step / 2 - 2,
        y2: y + step / 2 + 2,
        class: "chance",
      }),
    );
  entities.forEach(([entity, value], i) => {
    const spread = several ? 0 : (((i * 7) % 5) - 2) * 2.6;
    const dot = svg("circle", { cx: x(value), cy: y + spread, r: 2.6, class: "f", opacity: 0.42 });
    dots.push({
      dot,
      text: [
        el("b", {}, named(entity)),
        ` · ${kind.label}${several ? `, ${row.one.group.name}` : ""} · mean rank `,
        el("b", {}, value.toFixed(2)),
      ],
    });
    group.append(dot);
  });
  const start = startOf(row);
  if (start !== null)
    group.append(
      svg("circle", { cx: x(start), cy: y, r: 4.5, class: "hollow s", "stroke-width": 1.6 }),
    );
  if (rank.low !== null)
    group.append(
      svg("line", {
        x1: x(rank.low),
        x2: x(rank.high),
        y1: y,
        y2: y,
        class: "s",
        "stroke-width": 3,
        opacity: 0.75,
      }),
    );
  group.append(
    svg("circle", {
      cx: x(rank.mean),
      cy: y,
      r: 5.6,
      class: "f",
      stroke: "var(--paper)",
      "stroke-width": 1.5,
    }),
  );
  return group;
}

const named = (entity) => head.entities[entity] || entity;

/** Dots tell whose they are, under the pointer or by arrow keys. */
function readDots(root, dots, readout) {
  let at = -1;
  const show = (place) => {
    if (at >= 0 && dots[at]) dots[at].dot.setAttribute("opacity", 0.42);
    at = (place + dots.length) % dots.length;
    dots[at].dot.setAttribute("opacity", 1);
    readout.replaceChildren(...dots[at].text);
  };
  dots.forEach(({ dot }, place) => dot.addEventListener("pointerenter", () => show(place)));
  root.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step || !dots.length) return;
    event.preventDefault();
    show(at + step);
  });
}

const intervalText = (interval, key) =>
  !interval
    ? "–"
    : interval.low === null
      ? valued(interval.mean, key)
      : `${valued(interval.mean, key)} [${valued(interval.low, key)}, ${valued(interval.high, key)}]`;

function endingTable(shown) {
  return scrolled(
    tableOf(
      [
        "group",
        "asked",
        "evaluation",
        shown.some((one) => one.group.subsets) ? "runs or subsets" : "runs",
        "entities",
        "questions",
        "mean rank",
        "chance",
        "accuracy",
      ].map((name, i) => el("th", { class: i > 2 ? "num" : null }, name)),
      shown.flatMap((one) =>
        one.kinds.map((kind) => {
          const known = kind.rank || kind.accuracy || {};
          return [
            el("td", {}, one.group.name),
            el("td", {}, kind.asked),
            el("td", {}, `${one.evaluation}, epoch ${number(one.epoch)}`),
            [known.n_runs, known.n_entities, known.n_questions].map((n) =>
              el("td", { class: "num" }, number(n, 6)),
            ),
            el("td", { class: "num" }, intervalText(kind.rank, "rank")),
            el("td", { class: "num" }, number(kind.chance)),
            el("td", { class: "num" }, intervalText(kind.accuracy, "accuracy")),
          ];
        }),
      ),
    ),
    el(
      "p",
      { class: "note" },
      "[…]: 95 % bootstrap interval over entities, and over runs where there are several; over subsets, their runs drawn together, where runs trained subsets.",
    ),
  );
}
