// What is left: the runs, what did not end well, how to run it again.

function runTable(host) {
  const columns = [
    { key: "order", label: "run", value: (run) => run.order },
    head.groups.length > 1
      ? { key: "group", label: "group", value: (run) => head.groups[run.group].name }
      : null,
    { key: "status", label: "status", value: (run) => run.status },
    head.runs.some((run) => run.subset !== null)
      ? { key: "subset", label: "subset", number: true, value: (run) => Number(run.subset) }
      : null,
    { key: "seed", label: "order seed", number: true, value: (run) => run.data_order_seed },
    { key: "epochs", label: "epochs", number: true, value: (run) => run.epochs },
    { key: "rate", label: "peak rate", number: true, value: (run) => run.learning_rate },
    { key: "steps", label: "updates", number: true, value: (run) => run.steps },
    { key: "seconds", label: "time", number: true, value: (run) => run.seconds },
    { key: "evals", label: "an evaluation", number: true, value: (run) => run.eval_seconds },
    { key: "disk", label: "disk", number: true, value: (run) => run.disk },
  ].filter(Boolean);
  const [ordered, header] = sortable(
    head.runs.map((run, order) => ({ ...run, order })),
    columns,
    state.runSort,
    (key) => {
      redraw("runs");
      document.querySelector(`#runs [data-sort="${key}"]`).focus();
    },
  );
  add(
    host,
    scrolled(
      tableOf(
        header,
        ordered.map((run) => [
          el("td", { title: run.path }, el("code", {}, run.letters)),
          head.groups.length > 1 ? el("td", {}, head.groups[run.group].name) : null,
          el(
            "td",
            { class: run.status },
            run.status,
            run.resumed ? el("span", { class: "unknown" }, ` resumed ${run.resumed}×`) : null,
          ),
          head.runs.some((one) => one.subset !== null)
            ? el("td", { class: "num" }, run.subset === null ? "–" : run.subset)
            : null,
          [
            run.data_order_seed === null ? "–" : String(run.data_order_seed),
            number(run.epochs),
            run.learning_rate === null ? "–" : String(run.learning_rate),
            run.steps === null
              ? "–"
              : `${number(run.steps, 7)}${run.total_steps ? ` of ${number(run.total_steps, 7)}` : ""}`,
            duration(run.seconds),
            duration(run.eval_seconds),
            bytes(run.disk),
          ].map((text) => el("td", { class: "num" }, text)),
        ]),
      ),
    ),
    folded("paths", "Where they lie", () =>
      el("pre", {}, head.runs.map((run) => `${run.letters}  ${run.path}`).join("\n")),
    ),
  );
}

function failures(host) {
  if (!head.failures.length)
    return add(
      host,
      el("p", {}, "None: no run and no job is recorded as failed, interrupted or left unfinished."),
    );
  for (const one of head.failures)
    add(
      host,
      el(
        "div",
        { class: "failure" },
        el(
          "p",
          {},
          el("b", { class: one.state }, one.state),
          one.attempt ? `, attempt ${one.attempt}` : "",
          ` · ${one.label}`,
        ),
        one.message ? el("p", {}, one.message) : el("p", {}, unknown("its records give no reason")),
        one.lines && one.lines.length
          ? el("pre", {}, one.lines.join("\n"))
          : el("p", { class: "unknown" }, "It printed nothing that was kept."),
        el("p", { class: "note" }, "all of it: ", el("code", {}, one.log)),
      ),
    );
}

function replayPart(host) {
  const group = head.groups[state.group],
    told = group.replay;
  const lines = [];
  if (told.commit) lines.push(`git checkout ${told.commit}`);
  if (told.dirty) for (const diff of told.diffs.slice(0, 1)) lines.push(`git apply ${diff}`);
  if (told.command) lines.push(told.command);
  if (told.command)
    add(
      host,
      el(
        "p",
        {},
        "The experiment was started by this line, typed in the folder it was started from:",
      ),
    );
  else
    add(host, el("p", {}, "The line that started it was not recorded; the arguments below are."));
  if (lines.length) {
    const text = lines.join("\n"),
      copy = el(
        "button",
        {
          type: "button",
          onclick: async () => {
            try {
              await navigator.clipboard.writeText(text);
              copy.textContent = "copied";
            } catch {
              copy.textContent = "select it and copy";
            }
          },
        },
        "copy",
      );
    add(host, el("pre", { id: "replay-lines" }, text), copy);
  }
  add(
    host,
    el(
      "p",
      { class: "note" },
      told.dirty === true
        ? "The checkout had changes that were not committed; each run keeps them as working_tree.diff."
        : told.dirty === false
          ? "The checkout had no changes beside its commit."
          : "Whether the checkout had uncommitted changes is unknown.",
    ),
  );
  const rows = [
    ["commit", told.commit],
    ["dataset", told.dataset],
    ["dataset's digest", told.dataset_digest],
    ["model's commit", told.model_commit],
    ["digest of the weights before training", told.weights_digest],
    ["digest of the training windows", told.train_set_digest],
    ["Python", told.python],
    ["machine", told.host && `${told.host}, ${told.platform}`],
    ["GPUs", told.gpus.length ? told.gpus.join(", ") : told.host ? "none" : null],
    [
      "libraries",
      told.libraries &&
        Object.entries(told.libraries)
          .filter(([, v]) => v)
          .map(([k, v]) => `${k} ${v}`)
          .join(", "),
    ],
    [
      "environment",
      told.environment &&
        Object.entries(told.environment)
          .map(([k, v]) => `${k}=${v}`)
          .join(" "),
    ],
  ];
  add(
    host,
    scrolled(
      tableOf(
        [],
        rows.map(([name, value]) => [
          el("th", { scope: "row" }, name),
          el("td", {}, value ? el("code", {}, value) : unknown("unknown")),
        ]),
        { class: "cards" },
      ),
    ),
    folded("args", "Every argument that its runs share", () =>
      el(
        "pre",
        {},
        Object.entries(group.args)
          .sort()
          .map(([k, v]) => `${k} = ${JSON.stringify(v)}`)
          .join("\n"),
      ),
    ),
  );
}
