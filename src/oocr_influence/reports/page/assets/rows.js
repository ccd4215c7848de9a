// Rows of means with intervals, as bars or dots, on one scale; marks are levels to compare with.

/**
 * `rows`: {title} over those that follow, or {label, class, value: [mean, low, high], marks, more};
 * a mark is {value, class, label}. `bars`: from zero to the mean, else a dot. `range`: low and high
 * are those of runs, no interval. Nulls are unknown.
 */
function rowChart(host, options) {
  const figure = el("div", {}),
    readout = el(
      "p",
      { class: "readout", "aria-live": "polite" },
      "Point at a row, or focus the figure and press ↑ or ↓, to read it.",
    );
  add(host, el("figure", { class: "rows" }, figure, readout));
  const draw = () => figure.replaceChildren(rowsSvg(figure.clientWidth || 600, options, readout));
  draw();
  observe(figure, draw);
}

function rowsSvg(width, { rows, xLabel, bars, metric, told, range }, readout) {
  const narrow = width < 560,
    step = narrow ? 37 : 24;
  const longest = Math.max(0, ...rows.map((row) => (row.label || "").length));
  const room = {
    left: narrow ? 4 : Math.min(Math.max(110, longest * 6.7 + 16), 270),
    right: narrow ? 12 : 170,
    top: 28,
    bottom: 38,
  };
  const right = width - room.right;
  const values = finite(
    rows.flatMap((row) => [...(row.value || []), ...(row.marks || []).map((one) => one.value)]),
  );
  let [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
  if (!bars && metric && /rank/.test(metric)) low = Math.min(1, ...values);
  const air = (high - low || 1) * 0.03;
  [low, high] = [low < 0 ? low - air : low, high + air];
  const x = (v) => room.left + ((v - low) / (high - low)) * (right - room.left);
  const height =
    room.top + room.bottom + rows.reduce((sum, row) => sum + (row.title ? 27 : step), 0);
  const bottom = height - room.bottom;
  const root = svg("svg", {
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    tabindex: 0,
    role: "img",
    "aria-label": `${told || xLabel}: ${plural(rows.filter((row) => row.value).length, "row")}; arrow keys read them`,
  });
  for (const tick of niceTicks(low, high, (right - room.left) / 80))
    root.append(
      svg("line", {
        x1: x(tick),
        x2: x(tick),
        y1: room.top - 6,
        y2: bottom,
        class: tick === 0 ? "axis" : "grid",
      }),
      svg("text", { x: x(tick), y: room.top - 12, "text-anchor": "middle" }, number(tick)),
    );
  root.append(svg("text", { x: right, y: bottom + 22, "text-anchor": "end" }, xLabel));
  const readable = [];
  let y = room.top;
  for (const row of rows) {
    if (row.title) {
      root.append(svg("text", { x: 0, y: y + 19, class: "title" }, row.title));
      y += 27;
      continue;
    }
    const drawn = oneRow(row, x, {
      y,
      step,
      narrow,
      bars,
      left: room.left,
      width,
      text: (value) => endsText(value, metric, range),
    });
    readable.push({ row, drawn });
    root.append(drawn);
    y += step;
  }
  readRows(root, readable, { metric, range }, readout);
  return root;
}

function oneRow(row, x, { y, step, narrow, bars, left, width, text }) {
  const group = svg("g", { class: row.class || "k-trained" }),
    middle = narrow ? y + step - 9 : y + step / 2;
  const [mean, low, high] = row.value;
  group.append(
    svg("rect", { x: 0, y, width, height: step, class: "catch" }),
    svg(
      "text",
      {
        x: narrow ? 0 : left - 12,
        y: narrow ? y + 15 : middle + 4,
        "text-anchor": narrow ? "start" : "end",
        class: "name",
      },
      row.label,
    ),
    svg(
      "text",
      { x: width, y: narrow ? y + 15 : middle + 4, "text-anchor": "end" },
      mean === null ? "unknown" : text(row.value),
    ),
  );
  if (mean === null) return group;
  if (bars)
    group.append(
      svg("rect", {
        x: Math.min(x(0), x(mean)),
        y: middle - 6,
        width: Math.max(0.5, Math.abs(x(mean) - x(0))),
        height: 12,
        class: "f bar-row",
      }),
    );
  if (low !== null && low !== undefined && high !== null)
    group.append(
      svg("line", {
        x1: x(low),
        x2: x(high),
        y1: middle,
        y2: middle,
        class: bars ? "whisker" : "s",
        "stroke-width": bars ? 1.5 : 2.5,
      }),
    );
  if (!bars) group.append(svg("circle", { cx: x(mean), cy: middle, r: 4.5, class: "f" }));
  for (const mark of row.marks || [])
    if (mark.value !== null && mark.value !== undefined)
      group.append(
        svg("line", {
          x1: x(mark.value),
          x2: x(mark.value),
          y1: middle - 10,
          y2: middle + 10,
          class: mark.class,
        }),
      );
  return group;
}

/** `mean [low, high]` of an interval, `mean (low to high)` of a range over runs. */
function endsText([mean, low, high], metric, range) {
  const told = (value) => valued(value, metric || "");
  if (low === null || low === undefined) return told(mean);
  return range
    ? `${told(mean)} (${told(low)} to ${told(high)})`
    : `${told(mean)} [${told(low)}, ${told(high)}]`;
}

function readRows(root, readable, { metric, range }, readout) {
  let at = -1;
  const show = (place) => {
    if (at >= 0) readable[at].drawn.classList.remove("read");
    at = (place + readable.length) % readable.length;
    const { row, drawn } = readable[at];
    drawn.classList.add("read");
    readout.replaceChildren(
      el("b", {}, row.told || row.label),
      ` · ${row.value[0] === null ? "unknown" : endsText(row.value, metric, range)}`,
      ...(row.marks || [])
        .filter((mark) => mark.label && mark.value !== null)
        .map((mark) => ` · ${mark.label} ${valued(mark.value, metric || "")}`),
      row.more || "",
    );
  };
  readable.forEach(({ drawn }, place) => drawn.addEventListener("pointerenter", () => show(place)));
  root.addEventListener("keydown", (event) => {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step || !readable.length) return;
    event.preventDefault();
    show(at < 0 && step < 0 ? readable.length - 1 : at + step);
  });
}

/** A plain table: `columns` are {label, number, show(row)}. */
function plainTable(rows, columns) {
  return scrolled(
    tableOf(
      columns.map((one) => el("th", { scope: "col", class: one.number ? "num" : null }, one.label)),
      rows.map((row) =>
        columns.map((one) => el("td", { class: one.number ? "num" : null }, one.show(row))),
      ),
    ),
  );
}
