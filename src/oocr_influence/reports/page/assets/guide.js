// Reading a chart's values, by pointer and by arrow keys.

/** A line at the nearest x, moved by pointer or arrow keys; values are written below the figure. */
function guide(root, { lines, x, top, bottom, left, right, readout, xLabel, metric }) {
  if (!readout) return;
  const xs = [...new Set(lines.flatMap((line) => line.x))].sort((a, b) => a - b);
  const mark = svg("line", { class: "guide", y1: top, y2: bottom, visibility: "hidden" });
  let at = -1;
  root.append(mark);
  const show = (place) => {
    at = Math.max(0, Math.min(xs.length - 1, place));
    mark.setAttribute("x1", x(xs[at]));
    mark.setAttribute("x2", x(xs[at]));
    mark.setAttribute("visibility", "visible");
    const parts = [el("b", {}, `${xLabel.replace(/s of training$|s$/, "")} ${number(xs[at])}`)];
    for (const line of lines) {
      const i = line.x.indexOf(xs[at]);
      if (i < 0 || line.mean[i] === null) continue;
      const spread =
        line.low && line.low[i] !== line.high[i]
          ? ` (${valued(line.low[i], metric)} to ${valued(line.high[i], metric)})`
          : "";
      parts.push(
        ` · ${line.kind.label || line.name} `,
        el("b", {}, valued(line.mean[i], metric)),
        spread,
      );
    }
    readout.replaceChildren(...parts);
  };
  const nearest = (event) => {
    const box = root.getBoundingClientRect(),
      px = event.clientX - box.left;
    if (px < left - 15 || px > right + 25) return;
    show(
      xs.reduce((best, v, i) => (Math.abs(x(v) - px) < Math.abs(x(xs[best]) - px) ? i : best), 0),
    );
  };
  root.addEventListener("pointermove", nearest);
  root.addEventListener("pointerdown", nearest);
  root.addEventListener("pointerleave", () => mark.setAttribute("visibility", "hidden"));
  root.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    show(at < 0 ? (step > 0 ? 0 : xs.length - 1) : at + step);
  });
}
