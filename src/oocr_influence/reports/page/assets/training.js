// How training went: losses of updates and of whole documents, gradient norms, rates.

const COURSES = [
  ["loss", "loss of the batch", "nats a token"],
  ["grad_norm", "norm of the gradient", "before clipping"],
  ["learning_rate", "learning rate", ""],
];

function trainingPart(host) {
  const shown = head.groups.filter((group) => Object.keys(group.training.series).length);
  if (!shown.length) return add(host, el("p", { class: "unknown" }, "No losses were recorded."));
  const group = head.groups[state.group],
    { training } = group;
  const readout = el(
    "p",
    { class: "readout", "aria-live": "polite" },
    "Point into a panel, or focus it and press ← or →, to read its values.",
  );
  const grid = el("div", { class: "panels" });
  add(host, el("figure", {}, grid));
  for (const [key, label, unit] of COURSES) {
    const series = training.series[key];
    if (!series) continue;
    const epochs = training.steps_per_epoch;
    const x = epochs ? series.steps.map((step) => step / epochs) : series.steps;
    const line = {
      name: key,
      kind: { class: "k-trained", label: "", dashed: false },
      x,
      ...series,
      plain: true,
    };
    panel(grid, {
      title: label,
      lines: [line],
      yLabel: unit,
      xLabel: epochs ? "epochs of training" : "updates",
      readout,
      metric: key,
    });
  }
  documentLosses(grid, group, readout);
  const averaged = training.from_history
    ? "No step log was kept: these are the losses in the history, one an evaluation. "
    : training.updates_a_point > 1
      ? `Each point is the mean of ${training.updates_a_point} updates. `
      : "Each point is one update. ";
  add(
    host,
    readout,
    el(
      "p",
      { class: "note" },
      averaged +
        (group.n_runs > 1
          ? "The line is the mean over runs, the band reaches from the lowest to the highest. "
          : "") +
        (group.subsets
          ? "Subsets differ in their number of updates: the last points are of the longer runs alone. "
          : "") +
        (Object.keys(training.documents).length
          ? "Losses of whole documents are measured at each evaluation on a fixed sample: trained ones, unseen ones of the same facts, and pretraining text. What falls for trained documents alone is their wording, not the facts."
          : ""),
    ),
  );
}

function panel(grid, options) {
  const values = finite(
    options.lines.flatMap((line) => [...line.mean, ...(line.low || []), ...(line.high || [])]),
  );
  if (!values.length) return;
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const box = el("div", {});
  grid.append(box);
  const domain =
    low >= 0 && low < high * 0.6
      ? [0, high * 1.04]
      : [low - (high - low || 1) * 0.05, high + (high - low || 1) * 0.05];
  lineChart(box, { ...options, domain, up: false, height: 230 });
}

function documentLosses(grid, group, readout) {
  const documents = Object.entries(group.training.documents);
  if (!documents.length) return;
  const x = group.evaluations.map((one) => one.epoch);
  panel(grid, {
    title: "loss of whole documents",
    yLabel: "nats a token",
    xLabel: "epochs of training",
    readout,
    metric: "loss",
    lines: documents.map(([name, mean]) => ({
      name,
      kind: { ...kindOf(name), label: name },
      x,
      mean,
    })),
  });
}
