// Every set at every evaluation: a row a set, a column an evaluation.

function heat(host) {
  const group = head.groups[state.group];
  const metric = metricFor(group.lines);
  if (!metric || !group.evaluations.length)
    return add(host, el("p", { class: "unknown" }, "No evaluation has been recorded."));
  const box = el("div", { class: "heat" });
  const readout = el(
    "p",
    { class: "readout", "aria-live": "polite" },
    "Point at a cell, or focus the figure and press the arrow keys; click or Enter shows the set's questions.",
  );
  add(host, el("figure", {}, box, readout, el("figcaption", {}, heatCaption(metric, group))));
  const draw = () =>
    box.replaceChildren(
      ...(detail
        ? heatSvgs(box.clientWidth || 600, group, metric, readout)
        : [el("p", { class: "note" }, "Reading …")]),
    );
  draw();
  observe(box, draw);
}

function heatCaption(metric, group) {
  const colours = metric.ranks
    ? "Blue is better than chance, the deeper the nearer to rank 1; white is chance; orange is worse than chance."
    : `The deeper the blue, the ${metric.better === "low" ? "lower" : "higher"}${metric.better ? " (better)" : ""}.`;
  return `How to read: each row is one set of questions (one wording), each column one evaluation; a cell is ${metric.label}, ${group.n_runs > 1 ? "mean over runs" : "of the one run"}. ${colours}`;
}

/** From −1 (worst) over 0 (chance, or nothing) to 1 (best). */
function shades(group, metric, rows) {
  const values = finite(rows.flatMap((row) => row.values));
  const [low, high] = [Math.min(...values), Math.max(...values)];
  if (metric.ranks)
    return (value, set) => {
      const chance = group.chance[set.name];
      if (!chance || chance <= 1) return (high - value) / (high - 1 || 1);
      return value <= chance
        ? (chance - value) / (chance - 1)
        : Math.max(-1, -(value - chance) / (chance - 1));
    };
  if (["accuracy", "prob", "beam_found", "beam_prob_right"].includes(metric.key))
    return (value) => value;
  return (value) => (metric.better === "low" ? high - value : value - low) / (high - low || 1);
}

function heatSvgs(width, group, metric, readout) {
  const own = detail.heat[state.group],
    values = own.values[metric.key] || [];
  const rows = own.sets.map((place, i) => ({ set: head.sets[place], values: values[i] || [] }));
  const shade = shades(group, metric, rows),
    n = group.evaluations.length;
  const narrow = width < 560,
    left = narrow ? 0 : 250,
    high = rows.length > 120 ? 6 : rows.length > 40 ? 9 : 14;
  const wide = Math.min(110, (width - left - 4) / n);
  const blocks = [];
  let y = 34,
    cells = [];
  for (const row of rows) {
    const name = `${row.set.asked} · ${(row.set.relation || "?").replaceAll("_", " ")}`;
    const last = blocks[blocks.length - 1];
    if (!last || last.name !== name) {
      y += narrow ? 20 : blocks.length ? 5 : 0;
      blocks.push({ name, top: y, set: row.set });
    }
    blocks[blocks.length - 1].bottom = y + high;
    row.y = y;
    y += high;
  }
  const height = y + 46;
  const root = svg("svg", {
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    tabindex: 0,
    role: "img",
    "aria-label": `${metric.label} of ${rows.length} sets at ${n} evaluations; arrow keys move, Enter shows the questions`,
  });
  const every = Math.ceil(34 / wide);
  group.evaluations.forEach((one, e) => {
    if (e % every === 0 || (e === n - 1 && (n - 1) % every > every / 2))
      root.append(
        svg(
          "text",
          { x: left + (e + 0.5) * wide, y: 24, "text-anchor": "middle" },
          number(one.epoch),
        ),
      );
  });
  root.append(svg("text", { x: left, y: 9 }, "epochs of training"));
  for (const block of blocks) {
    const kind = kindOf(block.set.asked),
      text = `${(block.set.relation || "?").replaceAll("_", " ")}, ${kind.label}`;
    if (narrow)
      root.append(svg("text", { x: 0, y: block.top - 6, class: `f ${kind.class}` }, text));
    else if (block.bottom - block.top >= 11)
      root.append(
        svg(
          "text",
          {
            x: left - 10,
            y: (block.top + block.bottom) / 2 + 4,
            "text-anchor": "end",
            class: `f ${kind.class}`,
          },
          text.length > 40 ? text.slice(0, 39) + "…" : text,
        ),
      );
  }
  cells = rows.map((row) =>
    row.values.map((value, e) => {
      const t = value === null ? 0 : shade(value, row.set);
      const colour = `rgb(var(--heat-${t < 0 ? "bad" : "good"}) / ${Math.min(1, Math.abs(t)).toFixed(2)})`;
      const rect = svg("rect", {
        x: left + e * wide,
        y: row.y,
        width: wide + 0.3,
        height: high + 0.3,
        style: `fill: ${colour}`,
      });
      root.append(rect);
      return rect;
    }),
  );
  legend(root, metric, left, y + 20, narrow);
  readCells(root, rows, cells, { group, metric, readout, left, wide, high });
  return [root];
}

function legend(root, metric, x, y, narrow) {
  const steps = metric.ranks ? [-1, -0.5, 0, 0.25, 0.5, 0.75, 1] : [0, 0.25, 0.5, 0.75, 1];
  const size = narrow ? 26 : 34;
  steps.forEach((t, i) =>
    root.append(
      svg("rect", {
        x: x + i * size,
        y,
        width: size,
        height: 9,
        style: `fill: rgb(var(--heat-${t < 0 ? "bad" : "good"}) / ${Math.abs(t)}); stroke: var(--grid)`,
      }),
    ),
  );
  const ends = metric.ranks ? [narrow ? "worse" : "far worse", "chance", "right"] : ["", "", ""];
  if (metric.ranks)
    [
      [0, "start"],
      [2.5, "middle"],
      [7, "end"],
    ].forEach(([at, anchor], i) =>
      root.append(svg("text", { x: x + at * size, y: y + 22, "text-anchor": anchor }, ends[i])),
    );
  else
    root.append(
      svg("text", { x, y: y + 22 }, metric.better === "low" ? "highest" : "lowest"),
      svg(
        "text",
        { x: x + 5 * size, y: y + 22, "text-anchor": "end" },
        metric.better === "low" ? "lowest" : "highest",
      ),
    );
}

function readCells(root, rows, cells, { group, metric, readout, left, wide, high }) {
  let at = null;
  const show = (r, e) => {
    if (at) cells[at[0]][at[1]].style.stroke = "";
    at = [
      Math.max(0, Math.min(rows.length - 1, r)),
      Math.max(0, Math.min(group.evaluations.length - 1, e)),
    ];
    const row = rows[at[0]],
      value = row.values[at[1]],
      chance = metric.ranks ? group.chance[row.set.name] : null;
    cells[at[0]][at[1]].style.stroke = "var(--ink)";
    readout.replaceChildren(
      el("b", {}, row.set.name),
      ` · ${row.set.asked} · epoch ${number(group.evaluations[at[1]].epoch)} · ${metric.label} `,
      el("b", {}, valued(value, metric.key)),
      chance ? ` (chance ${number(chance)})` : "",
    );
  };
  const under = (event) => {
    const box = root.getBoundingClientRect(),
      px = event.clientX - box.left,
      py = event.clientY - box.top;
    const r = rows.findIndex((row) => py >= row.y && py < row.y + high),
      e = Math.floor((px - left) / wide);
    return r >= 0 && e >= 0 && e < group.evaluations.length ? [r, e] : null;
  };
  root.addEventListener("pointermove", (event) => {
    const found = under(event);
    if (found) show(...found);
  });
  root.addEventListener("click", (event) => {
    const found = under(event);
    if (found) {
      show(...found);
      drill(rows[found[0]].set);
    }
  });
  root.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[
      event.key
    ];
    if (step) {
      event.preventDefault();
      at ? show(at[0] + step[0], at[1] + step[1]) : show(0, 0);
    } else if (event.key === "Enter" && at) drill(rows[at[0]].set);
  });
}

/** Show the questions of one set. */
function drill(set) {
  Object.assign(state, {
    set: set.name,
    asked: "",
    relation: "",
    search: "",
    wrong: false,
    page: 0,
  });
  redraw("questions");
  document.getElementById("questions").scrollIntoView();
}
