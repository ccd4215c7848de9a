// Every metric over epochs: all kinds of a group, then by relation, by form, by shown examples.

function chartLines(group, lines, metric) {
  const x = group.evaluations.map((one) => one.epoch);
  return lines
    .filter((line) => line.series[metric.key])
    .map((line) => {
      const series = line.series[metric.key];
      return {
        name: line.asked,
        kind: kindOf(line.asked),
        x,
        ...series,
        chance: metric.ranks ? line.chance : null,
        swapped: line.asked === "trained" ? series.swapped : null,
        n: line.n_questions,
      };
    });
}

/** Values from the lowest to the highest drawn, with what every metric starts from. */
function domainOf(charts, metric) {
  const values = finite(
    charts
      .flat()
      .flatMap((line) => [
        ...line.mean,
        ...(line.low || []),
        ...(line.high || []),
        ...(line.swapped || []),
        ...(line.runs || []).flat(),
      ]),
  );
  if (!values.length) return [0, 1];
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (metric.ranks)
    return [1, Math.max(high, ...finite(charts.flat().map((line) => line.chance))) * 1.04];
  if (["accuracy", "prob", "beam_found", "beam_prob_right", "normalised_rank"].includes(metric.key))
    return [0, Math.max(0.1, Math.min(1, high * 1.05))];
  if (low > 0 && metric.key === "loss") low = 0;
  const air = (high - low || 1) * 0.04;
  return [low === 0 ? 0 : low - air, high + air];
}

function overEpochs(host) {
  const shown = head.groups.filter((group) => group.lines.length);
  if (!shown.length)
    return add(host, el("p", { class: "unknown" }, "No evaluation has been recorded."));
  const metric = metricFor(shown.flatMap((group) => group.lines));
  if (!metric) return add(host, el("p", { class: "unknown" }, "No metric was recorded."));
  const lines = (group) => group.lines.filter((line) => line.split === "asked");
  const once = shown.filter(askedOnce);
  const courses = shown.filter((group) => !askedOnce(group));
  const charts = courses.map((group) =>
    chartLines(
      group,
      lines(group),
      metric,
    ),
  );
  if (courses.length)
    panelsOf(
      host,
      metric,
      charts.map((lines, i) => ({ title: shown.length > 1 ? courses[i].name : null, lines })),
      { wide: true },
    );
  for (const group of once) answeredOnce(host, group, lines(group), metric, shown.length > 1);
  add(
    host,
    el("p", { class: "note" }, curveCaption(metric, shown)),
    chartTable(
      "epochs-table",
      shown,
      shown.map((group) => chartLines(group, lines(group), metric)),
      metric,
    ),
  );
}

const askedOnce = (group) => group.evaluations.length === 1;

/** Of a group that was asked once there is no course: its means and ranges, a row a line. */
function answeredOnce(host, group, lines, metric, named) {
  const rows = [];
  let panel = null;
  for (const line of lines.filter((one) => one.series[metric.key])) {
    const series = line.series[metric.key];
    if (line.panel && line.panel !== panel) rows.push({ title: line.panel.replaceAll("_", " ") });
    panel = line.panel;
    rows.push({
      label: kindOf(line.asked).label,
      class: kindOf(line.asked).class,
      value: [series.mean[0], series.low[0], series.high[0]],
      marks: metric.ranks && line.chance ? [{ value: line.chance, class: "chance" }] : [],
      more: ` · ${plural(line.n_questions, "question")}`,
    });
  }
  if (named) add(host, el("h3", {}, group.name));
  rowChart(host, { rows, xLabel: metric.label, metric: metric.key, told: metric.label, range: true });
}

function panelsOf(host, metric, panels, { wide } = {}) {
  const domain = domainOf(
    panels.map((panel) => panel.lines),
    metric,
  );
  const grid = el("div", { class: `panels${panels.length === 1 ? " one" : wide ? " wide" : ""}` });
  add(host, el("figure", {}, grid));
  const readout = el(
    "p",
    { class: "readout", "aria-live": "polite" },
    "Point into a panel, or focus it and press ← or →, to read its values.",
  );
  for (const panel of panels) {
    const box = el("div", {});
    grid.append(box);
    lineChart(box, {
      ...panel,
      domain,
      up: metric.ranks || metric.key === "normalised_rank",
      readout,
      metric: metric.key,
      xLabel: "epochs of training",
      yLabel: grid.children.length === 1 ? metric.label : "",
      told: metric.label,
      height: panels.length === 1 ? 360 : undefined,
    });
  }
  add(host, readout);
}

function curveCaption(metric, shown) {
  const many = Math.max(...shown.map((group) => group.n_runs));
  const once = shown.every(askedOnce);
  const over = shown.every((group) => group.subsets)
    ? "subsets and seeds"
    : shown.some((group) => group.subsets)
      ? "seeds (of sweeps over subsets: over subsets and seeds)"
      : "seeds";
  const spread =
    many > 1
      ? once
        ? `Asked once: there is no course to draw. The dot is the mean over runs, the line reaches from the lowest to the highest run: the spread over ${over}, no interval. `
        : `A line is the mean over runs, the band reaches from the lowest to the highest run, thin lines are the runs: the spread over ${over}, no interval. `
      : "One run each: there is no spread over seeds to show. ";
  const better = metric.better
    ? `${metric.better === "low" ? "Lower" : "Higher"} is better${metric.ranks && !once ? ", and drawn on top" : ""}. `
    : "";
  const swapped = shown.some((group) =>
    group.lines.some((line) => (line.series[metric.key] || {}).swapped),
  )
    ? "The thin dotted line is the null level of the trained questions: the same metric, graded by another entity's answer. "
    : "";
  return `${metric.label}: ${metric.explained}. ${better}${spread}${swapped}${shown.some((group) => group.lines.some((line) => line.asked.startsWith("control"))) ? "Grey are controls: questions about entities that no document tells this of." : "No controls were asked."}`;
}

function chartTable(key, groups, charts, metric) {
  return folded(key, "The same numbers as a table", () =>
    scrolled(
      charts.map((lines, i) =>
        tableOf(
          [
            el("th", {}, groups[i].name),
            el("th", { class: "num" }, "questions"),
            groups[i].evaluations.map((one) =>
              el("th", { class: "num" }, `epoch ${number(one.epoch)}`),
            ),
          ],
          lines.map((line) => [
            el("th", { scope: "row" }, line.name),
            el("td", { class: "num" }, number(line.n, 6)),
            line.mean.map((value, e) =>
              el(
                "td",
                { class: "num" },
                valued(value, metric.key),
                line.low[e] !== line.high[e]
                  ? ` (${valued(line.low[e], metric.key)}–${valued(line.high[e], metric.key)})`
                  : "",
              ),
            ),
          ]),
        ),
      ),
    ),
  );
}

/** Small panels of the chosen group, one a value of `split`. */
function bySplit(host, split) {
  const group = head.groups[state.group];
  const lines = group.lines.filter((line) => line.split === split);
  const metric = metricFor(group.lines);
  if (!lines.length || !metric)
    return add(host, el("p", { class: "unknown" }, "No evaluation has been recorded."));
  if (askedOnce(group)) return answeredOnce(host, group, lines, metric, false);
  const names = [...new Set(lines.map((line) => line.panel))];
  const panels = names
    .map((name) => {
      const own = lines.filter((line) => line.panel === name);
      return { title: name.replaceAll("_", " "), lines: chartLines(group, own, metric) };
    })
    .filter((panel) => panel.lines.length);
  panelsOf(host, metric, panels);
}

const byRelation = (host) => bySplit(host, "relation");
const byForm = (host) => bySplit(host, "form");
const byExamples = (host) => bySplit(host, "examples");
