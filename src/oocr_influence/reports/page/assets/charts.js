// Lines over epochs: means, spread, chance, labels at the lines' ends, a guide for pointer and keys.

function niceTicks(low, high, about) {
  const span = high - low || 1,
    raw = span / Math.max(1, about);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const ticks = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-9; tick += step)
    ticks.push(Number(tick.toPrecision(12)));
  return ticks;
}

/** Places of labels, each moved as little as it takes for none to touch another. */
function apart(labels, top, bottom) {
  const blocks = [];
  for (const label of [...labels].sort((a, b) => a.y - b.y)) {
    let block = { labels: [label], centre: label.y, height: label.height };
    while (blocks.length) {
      const before = blocks[blocks.length - 1];
      if (before.centre + before.height / 2 <= block.centre - block.height / 2) break;
      blocks.pop();
      const all = [...before.labels, ...block.labels];
      block = {
        labels: all,
        height: before.height + block.height,
        centre: all.reduce((sum, one) => sum + one.y, 0) / all.length,
      };
    }
    block.centre = Math.min(
      Math.max(block.centre, top + block.height / 2),
      Math.max(bottom - block.height / 2, top + block.height / 2),
    );
    blocks.push(block);
  }
  for (const block of blocks) {
    let y = block.centre - block.height / 2;
    for (const label of block.labels) {
      label.place = y + label.height / 2;
      y += label.height;
    }
  }
  return labels;
}

function wrapped(text, most) {
  const lines = [];
  for (const word of text.split(" "))
    if (lines.length && (lines[lines.length - 1] + " " + word).length <= most)
      lines[lines.length - 1] += " " + word;
    else lines.push(word);
  return lines;
}

const finite = (values) => values.filter((value) => value !== null && value !== undefined);

/**
 * A chart. `lines`: {name, kind, x, mean, low, high, runs, swapped}; `domain`: [low, high] of values;
 * `up`: whether low values stand on top; `chance` of a line: the level of a guess; `title` stands over the panel.
 */
function lineChart(host, options) {
  const draw = () => {
    const width = Math.max(230, Math.min(host.clientWidth || 600, options.most || 900));
    host.replaceChildren(chartSvg(width, options, host));
  };
  draw();
  observe(host, draw);
}

const observer = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries)
    if (Math.abs(contentRect.width - target.drawnWidth) > 2) {
      target.drawnWidth = contentRect.width;
      target.redraw();
    }
});

function observe(host, redraw) {
  host.redraw = redraw;
  host.drawnWidth = host.clientWidth;
  observer.observe(host);
}

function chartSvg(width, options) {
  const { lines, domain, up, title, xLabel, yLabel } = options;
  const chances = chancesOf(lines, domain);
  const narrow = width < 420,
    labelChars = narrow ? 12 : 22;
  const labels = [
    ...lines.filter((line) => line.kind.label).map((line) => wrapped(line.kind.label, labelChars)),
    ...chances.map((one) => one.texts),
  ];
  const longest = Math.max(0, ...labels.flat().map((text) => text.length));
  const room = {
    left: 42,
    right: Math.min(16 + longest * 7.2, width * 0.42),
    top: title && yLabel ? 42 : 26,
    bottom: 40,
  };
  const height = options.height || (narrow ? 230 : 300);
  const right = width - room.right,
    bottom = height - room.bottom;
  const xs = lines.flatMap((line) => line.x);
  const [first, last] = [Math.min(...xs), Math.max(...xs)];
  const x = (v) =>
    room.left + (last > first ? (v - first) / (last - first) : 0.5) * (right - room.left);
  const share = (v) => (v - domain[0]) / (domain[1] - domain[0] || 1);
  const y = (v) =>
    up ? room.top + share(v) * (bottom - room.top) : bottom - share(v) * (bottom - room.top);
  const root = svg("svg", {
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    tabindex: 0,
    role: "img",
    "aria-label": `${title ? title + ": " : ""}${options.told || yLabel} over ${xLabel}; arrow keys read the values`,
  });
  if (title) root.append(svg("text", { x: 0, y: 13, class: "title" }, title));
  root.append(svg("text", { x: 0, y: room.top - 12 }, yLabel));
  for (const tick of ticksOf(domain, up, bottom - room.top)) {
    root.append(
      svg("line", { x1: room.left, x2: right, y1: y(tick), y2: y(tick), class: "grid" }),
      svg("text", { x: room.left - 7, y: y(tick) + 4, "text-anchor": "end" }, number(tick)),
    );
  }
  const moments = [...new Set(xs)].sort((a, b) => a - b),
    fit = (right - room.left) / 48;
  for (const tick of moments.length <= Math.min(8, fit)
    ? moments
    : niceTicks(first, last, (right - room.left) / 70))
    root.append(svg("text", { x: x(tick), y: bottom + 16, "text-anchor": "middle" }, number(tick)));
  root.append(
    svg("line", { x1: room.left, x2: right, y1: bottom, y2: bottom, class: "axis" }),
    svg("text", { x: right, y: bottom + 33, "text-anchor": "end" }, xLabel),
  );
  for (const { level } of chances)
    root.append(
      svg("line", { x1: room.left, x2: right, y1: y(level), y2: y(level), class: "chance" }),
    );
  for (const line of [...lines].reverse()) root.append(drawLine(line, x, y));
  root.append(
    ...endLabels(lines, labelChars, x, y, {
      top: room.top - 6,
      bottom: bottom + 4,
      right,
      chances,
    }),
  );
  guide(root, { ...options, x, top: room.top, bottom, left: room.left, right });
  return root;
}

/** The levels of a guess; where lines have several, each says whose it is. */
function chancesOf(lines, domain) {
  const levels = new Map();
  for (const { chance, kind } of lines)
    if (chance !== null && chance !== undefined && chance <= domain[1])
      levels.set(number(chance), [...(levels.get(number(chance)) || []), { chance, kind }]);
  return [...levels].map(([text, own]) => ({
    level: own[0].chance,
    texts:
      levels.size === 1
        ? [`chance ${text}`]
        : wrapped(`chance ${text}: ${own.map((one) => one.kind.label).join(", ")}`, 16),
  }));
}

function ticksOf(domain, up, length) {
  const ticks = niceTicks(domain[0], domain[1], length / 42);
  return up && domain[0] === 1 ? [1, ...ticks.filter((tick) => tick > 1.4)] : ticks;
}

function path(xs, ys, x, y) {
  let text = "",
    pen = false;
  xs.forEach((v, i) => {
    const known = ys[i] !== null && ys[i] !== undefined;
    if (known) text += `${pen ? "L" : "M"}${x(v).toFixed(1)} ${y(ys[i]).toFixed(1)}`;
    pen = known;
  });
  return text;
}

function drawLine(line, x, y) {
  const group = svg("g", { class: line.kind.class, "data-line": line.name });
  const known = line.x.map((_, i) => i).filter((i) => line.mean[i] !== null);
  if (line.low && known.some((i) => line.low[i] !== line.high[i])) {
    const edge = [
      ...known.map((i) => `${x(line.x[i]).toFixed(1)} ${y(line.high[i]).toFixed(1)}`),
      ...known.reverse().map((i) => `${x(line.x[i]).toFixed(1)} ${y(line.low[i]).toFixed(1)}`),
    ];
    group.append(svg("path", { d: `M${edge.join("L")}Z`, class: "band f" }));
  }
  for (const run of line.runs && line.runs.length > 1 ? line.runs : [])
    group.append(svg("path", { d: path(line.x, run, x, y), class: "run s" }));
  if (line.swapped)
    group.append(svg("path", { d: path(line.x, line.swapped, x, y), class: "run s dashed" }));
  group.append(
    svg("path", {
      d: path(line.x, line.mean, x, y),
      class: `mean s${line.kind.dashed ? " dashed" : ""}`,
    }),
  );
  if (line.x.length <= 32 && !line.plain)
    line.x.forEach((v, i) => {
      if (line.mean[i] !== null)
        group.append(svg("circle", { cx: x(v), cy: y(line.mean[i]), r: 2.6, class: "f" }));
    });
  return group;
}

function endLabels(lines, most, x, y, { top, bottom, right, chances }) {
  const labels = [];
  for (const line of lines) {
    const last = line.mean.findLastIndex((value) => value !== null);
    if (last < 0 || !line.kind.label) continue;
    const texts = wrapped(line.kind.label, most);
    labels.push({
      y: y(line.mean[last]),
      x: x(line.x[last]) + 9,
      height: texts.length * 14 + 1,
      texts,
      line,
    });
  }
  for (const { level, texts } of chances)
    labels.push({ y: y(level), x: right + 9, height: texts.length * 14 + 1, texts, line: null });
  return apart(labels, top, bottom).map((label) =>
    svg(
      "text",
      { class: label.line ? `label f ${label.line.kind.class}` : "chance-label" },
      label.texts.map((text, i) =>
        svg(
          "tspan",
          { x: label.x, y: label.place + 4 + (i - (label.texts.length - 1) / 2) * 14 },
          text,
        ),
      ),
    ),
  );
}
