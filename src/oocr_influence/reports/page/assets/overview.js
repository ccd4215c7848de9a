// The first screen: what was run, how it stands, what was known in the end.

function overview(host) {
  const { groups } = head;
  const runs = head.runs.length;
  add(
    host,
    el(
      "p",
      { class: "kicker" },
      `${plural(runs, "run")}${groups.length > 1 ? ` in ${groups.length} groups` : ""} · read ${head.made.replace("T", " ").replace("+00:00", " UTC")}`,
    ),
    el("h1", {}, head.title),
    statusList(),
  );
  if (groups.length === 1)
    add(host, el("p", {}, groups[0].sentences.join(" ")), earlierNote(groups[0]));
  else
    for (const group of groups.slice(0, 12))
      add(
        host,
        el("p", {}, el("b", {}, `${group.name}. `), group.sentences.join(" ")),
        earlierNote(group),
      );
  if (groups.length > 12)
    add(
      host,
      el(
        "p",
        { class: "note" },
        `The sentences of ${groups.length - 12} more groups are left out; the table of runs has all.`,
      ),
    );
  if (head.notices.length)
    add(
      host,
      folded(
        "notices",
        `${plural(head.notices.length, "notice")}: what could not be read, and was left out`,
        () =>
          el(
            "ul",
            { class: "note" },
            head.notices.map((notice) => el("li", {}, notice)),
          ),
      ),
    );
  const different = Object.entries(head.differences);
  if (different.length)
    add(
      host,
      el("h3", {}, "What differs between the groups"),
      scrolled(
        tableOf(
          [el("th", {}, ""), groups.map((group) => el("th", {}, group.name))],
          different.map(([key, values]) => [
            el("th", { scope: "row" }, key.replaceAll("_", " ")),
            values.map((value) => el("td", {}, value === null ? "–" : plain(value))),
          ]),
        ),
      ),
    );
}

function plain(value) {
  const text = typeof value === "object" && value !== null ? JSON.stringify(value) : String(value);
  return text.length > 44 ? `${text.slice(0, 16)}…` : text;
}

const earlierNote = (group) =>
  group.earlier
    ? el(
        "p",
        { class: "note" },
        "Written by the earlier system: what it did not record is missing here, and its ranks are strict (ties count as better).",
      )
    : null;

/** How runs stand, and, where the launcher keeps a ledger, what its jobs do now. */
function statusList() {
  const counts = {},
    signs = { completed: "✓ ", failed: "✕ " };
  for (const run of head.runs) counts[run.status] = (counts[run.status] || 0) + 1;
  const runs = Object.entries(counts)
    .sort()
    .map(([status, n]) =>
      el(
        "li",
        {},
        el("span", { class: status }, signs[status] || "○ "),
        `${plural(n, "run")} ${status === "unknown" ? "of unknown status" : status}`,
      ),
    );
  const jobs = head.sweeps
    .filter(
      (one) =>
        one.counts && (one.live || Object.keys(one.counts).some((state) => state !== "done")),
    )
    .map((one) =>
      el(
        "li",
        {},
        `${head.sweeps.length > 1 ? one.experiment + ": " : ""}jobs: ${Object.entries(one.counts)
          .map(([state, n]) => `${n} ${state}`)
          .join(", ")}`,
        one.live ? "" : ", nobody works on them",
        one.seconds_left ? `, about ${duration(one.seconds_left)} left` : "",
      ),
    );
  const running = head.sweeps
    .flatMap((one) => one.running || [])
    .map((job) =>
      el(
        "li",
        {},
        el("span", { class: "running" }, "▸ "),
        `${job.label}: `,
        job.steps ? `step ${number(job.step, 7)} of ${number(job.steps, 7)}` : job.message,
        job.loss ? `, loss ${number(job.loss)}` : "",
      ),
    );
  const failed = head.failures.length
    ? el(
        "li",
        {},
        el(
          "a",
          { href: "#failures" },
          `${head.failures.length} did not end well: their last lines`,
        ),
      )
    : null;
  return el("ul", { class: "statuses" }, runs, jobs, running, failed);
}
