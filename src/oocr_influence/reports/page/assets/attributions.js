// Tables of scores: do methods find what states a fact, predict other runs, and agree?

function attributions(host) {
  for (const table of head.attributions) {
    add(host, el("h3", { class: "over" }, table.name));
    if (table.unavailable) {
      add(host, why("This table cannot be read", table.unavailable));
      continue;
    }
    const { about } = table;
    add(
      host,
      el(
        "p",
        {},
        `${plural(table.n_documents, "document")} were scored for ${plural(table.n_queries, "question")} by ${plural(table.methods.length, "method")}, at ${about.checkpoint ? `checkpoint ${about.checkpoint}` : "an unknown checkpoint"} of `,
        about.run
          ? el("code", { title: about.run }, about.run.split("/").pop().split("_")[4] || about.run)
          : "an unknown run",
        `. Grey are baselines that read no model: what reads it must beat them before it says anything about it.`,
      ),
    );
    retrievalBars(host, table);
    for (const lds of table.lds) {
      add(host, el("h3", {}, `Predicting held-out subsets${table.lds.length > 1 ? `: ${lds.sweep}` : ""}`));
      if (lds.unavailable) add(host, why("No LDS", lds.unavailable));
      else ldsBars(host, lds.scores, `lds ${table.folder} ${lds.sweep}`, lds.n_subsets, baselinesOf(table));
    }
    agreementTable(host, table);
    topTable(host, table);
  }
}

const baselinesOf = (table) =>
  new Set(table.methods.filter((one) => one.baseline).map((one) => one.name));

const ofQuestions = (kind, relation) =>
  `${kindOf(kind).label}, ${relation === "all" ? "all relations" : relation.replaceAll("_", " ")}`;

function retrievalBars(host, table) {
  add(host, el("h3", {}, "Finding the documents that state the fact"));
  const { groups, unavailable } = table.retrieval;
  if (unavailable) return add(host, why("No retrieval", unavailable));
  const baselines = baselinesOf(table);
  const keys = [...new Set(groups.map((one) => `${one.kind}\n${one.relation}`))];
  add(
    host,
    chosenOf(
      `retrieval ${table.folder}`,
      "found for questions",
      keys.map((key) => [key, ofQuestions(...key.split("\n"))]),
      (box, key) => {
        const own = groups.filter((one) => `${one.kind}\n${one.relation}` === key);
        const chance = own.find((one) => one.is_chance);
        const panels = el("div", { class: "panels wide" });
        add(box, panels);
        for (const [measure, label] of [
          ["mrr", "MRR: mean of 1 / rank of the first right document"],
          ["recall", `recall: share of the right documents among the first ${table.at}`],
        ]) {
          const panel = el("div", {});
          panels.append(panel);
          rowChart(panel, {
            bars: true,
            xLabel: label,
            rows: sorted(own.filter((one) => !one.is_chance), (one) => one[measure][0], true).map((one) => ({
              label: one.method,
              class: baselines.has(one.method) ? "k-control" : "k-trained",
              value: one[measure],
              marks: [{ value: chance[measure][0], class: "chance", label: "by chance" }],
              more: ` · ${plural(one.n_questions, "question")}`,
            })),
          });
        }
        add(
          box,
          el(
            "figcaption",
            {},
            `${plural(own[0].n_questions, "question")} about ${plural(own[0].n_entities, "entity").replace("entitys", "entities")}; ${number(own[0].relevant)} of ${number(table.n_documents, 6)} documents state the fact. Thin lines are 95 % intervals over entities, the dashed mark is chance; equal scores count as in no order.`,
          ),
        );
      },
    ),
  );
}

/** A cell's shade: towards blue for what is positive, towards orange for what is negative. */
const shade = (value) =>
  value === null || !value
    ? null
    : `background: rgb(var(--heat-${value > 0 ? "good" : "bad"}) / ${Math.min(0.5, Math.abs(value) * 0.5).toFixed(2)})`;

function agreementTable(host, table) {
  add(host, el("h3", {}, "Do methods agree?"));
  const { methods, rows, unavailable } = table.agreement;
  if (unavailable) return add(host, why("No agreement", unavailable));
  add(
    host,
    scrolled(
      tableOf(
        [
          el("th", {}, ""),
          methods.map((name) => el("th", { scope: "col", class: "turned" }, el("span", {}, name))),
        ],
        rows.map((row, i) => [
          el("th", { scope: "row" }, methods[i]),
          row.map((value) =>
            el("td", { class: "num", style: shade(value) }, value === null ? "–" : value.toFixed(2)),
          ),
        ]),
        { class: "shaded" },
      ),
    ),
    el(
      "figcaption",
      {},
      "Spearman's correlation of two methods' scores over all documents, its mean over questions; – where one gives all documents the same score.",
    ),
  );
}

function topTable(host, table) {
  add(host, el("h3", {}, `What the first ${table.at} documents tell of`));
  const { relations, among_all: all, rows, unavailable } = table.tops;
  if (unavailable) return add(host, why("Not known", unavailable));
  const percent = (share) => `${(share * 100).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
  const cell = (share, base) =>
    el("td", { class: "num", style: shade(base === null ? null : share - base) }, percent(share));
  const row = (label, shares, bases) => [
    el("th", { scope: "row" }, label),
    shares.map((share, i) => cell(share, bases ? bases[i] : null)),
  ];
  add(
    host,
    chosenOf(
      `tops ${table.folder}`,
      "on top by method",
      [...table.methods].reverse().map((one) => [one.name, one.name]),
      (box, method) =>
        add(
          box,
          scrolled(
            tableOf(
              [
                el("th", {}, "questions"),
                relations.map((name) => el("th", { class: "num" }, name.replaceAll("_", " "))),
              ],
              [
                row("among all documents", all, null),
                ...rows
                  .filter((one) => one.method === method)
                  .map((one) => row(ofQuestions(one.kind, one.relation), one.shares, all)),
              ],
              { class: "shaded" },
            ),
          ),
        ),
    ),
    el(
      "figcaption",
      {},
      "Shares of a question's first documents by the relation that they were written to tell, their mean over the questions of a kind and relation; blue: more than among all documents, orange: fewer.",
    ),
  );
}
