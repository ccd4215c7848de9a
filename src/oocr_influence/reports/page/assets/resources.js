// What it took: time and memory a phase, disk.

function resources(host) {
  const group = head.groups[state.group],
    { phases } = group;
  if (!phases.length) add(host, el("p", { class: "unknown" }, "Phases were not timed."));
  else {
    const longest = Math.max(...phases.map((one) => (one.seconds ? one.seconds.mean : 0)));
    const gpu = phases.some((one) => one.gpu_memory);
    add(
      host,
      scrolled(
        tableOf(
          [
            el("th", {}, "phase"),
            el("th", { class: "num" }, "times"),
            el("th", { class: "num" }, `time a run${group.n_runs > 1 ? ", mean" : ""}`),
            el("th", {}, ""),
            el("th", { class: "num" }, "peak memory"),
            gpu ? el("th", { class: "num" }, "GPU peak") : null,
          ],
          phases.map((one) => [
            el("td", {}, one.inside ? "· " : "", one.name.replaceAll("_", " ")),
            el("td", { class: "num" }, one.count),
            el(
              "td",
              { class: "num" },
              one.seconds ? duration(one.seconds.mean) : "–",
              one.seconds && one.n_runs > 1 && one.seconds.low !== one.seconds.high
                ? el(
                    "span",
                    { class: "unknown" },
                    ` ${duration(one.seconds.low)} to ${duration(one.seconds.high)}`,
                  )
                : null,
            ),
            el(
              "td",
              {},
              el("span", {
                class: `bar${one.inside ? " in" : ""}`,
                style: `width: ${one.seconds ? ((9 * one.seconds.mean) / (longest || 1)).toFixed(2) : 0}rem`,
              }),
            ),
            el("td", { class: "num" }, gibibytes(one.memory)),
            gpu ? el("td", { class: "num" }, gibibytes(one.gpu_memory)) : null,
          ]),
        ),
      ),
      el(
        "p",
        { class: "note" },
        "Wall time. Phases with a dot lie inside training or beside it in another thread, so that times do not add up. Peak memory is the most that a run's process held.",
      ),
    );
  }
  const parts = Object.entries(head.disk),
    total = parts.reduce((sum, [, n]) => sum + n, 0),
    largest = Math.max(1, ...parts.map(([, n]) => n));
  add(
    host,
    el("h3", {}, `Disk: ${bytes(total)} in all runs of this page`),
    scrolled(
      tableOf(
        [],
        parts.map(([name, n]) => [
          el("td", {}, name),
          el("td", { class: "num" }, bytes(n)),
          el(
            "td",
            {},
            el("span", { class: "bar", style: `width: ${((9 * n) / largest).toFixed(2)}rem` }),
          ),
        ]),
      ),
    ),
  );
}
