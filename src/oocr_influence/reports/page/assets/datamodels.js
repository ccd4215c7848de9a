// Sweeps over subsets: effects of facts, the seeds' noise, and what datamodels predict.

const MOST_FACTS = 24;
const WHOSE = [
  ["own", "the fact asked for"],
  ["entity", "other facts of the entity"],
  ["others", "facts of other entities"],
];
const classOf = (kind, who) =>
  who === "own" ? kindOf(kind).class : who === "entity" ? "k-first_hop" : "k-control";

function datamodels(host) {
  for (const one of head.datamodels) {
    if (head.datamodels.length > 1) add(host, el("h3", { class: "over" }, one.experiment));
    if (one.unavailable) add(host, why("Nothing can be said of its subsets", one.unavailable));
    else datamodel(host, one);
  }
}

const why = (what, reason) => el("p", { class: "note why" }, el("b", {}, `${what}: `), reason, ".");

function datamodel(host, one) {
  const split = (name) =>
    `${plural(one.n_subsets[name], "subset")} of the ${name} split (${plural(one.n_runs[name], "completed run")})`;
  add(
    host,
    el(
      "p",
      {},
      `The same model was trained on ${split("train")} and ${split("test")}, and asked ${plural(one.n_questions, "question")}${one.n_left_out ? ` (${one.n_left_out} more that some run did not answer are left out)` : ""}. The outcome is the ${one.unit}.`,
    ),
  );
  effectsOfFacts(host, one);
  add(host, el("h3", {}, "What predicts runs on other subsets"));
  if (one.lds.unavailable) add(host, why("No LDS", one.lds.unavailable));
  else ldsBars(host, one.lds.scores, `lds ${one.experiment}`, one.n_subsets.test);
}

function effectsOfFacts(host, one) {
  const { effects } = one;
  add(host, el("h3", {}, "Effects of facts"));
  if (effects.unavailable) return add(host, why("No effects", effects.unavailable));
  effects.kinds.sort((a, b) => byKind(a.kind, b.kind));
  const rows = effects.kinds.filter((kind) => WHOSE.some(([who]) => kind[who])).flatMap((kind) => [
    { title: `${kindOf(kind.kind).label} (${plural(kind.n_questions, "question")})` },
    ...WHOSE
      .filter(([who]) => kind[who])
      .map(([who, label]) => ({
        label,
        told: `${kind.kind}: ${label}`,
        class: classOf(kind.kind, who),
        value: kind[who],
      })),
  ]);
  rowChart(host, { rows, xLabel: `effect of one more document, ${unitOf(one)}`, told: "mean effects" });
  add(host, el("figcaption", {}, effectsCaption(one)));
  beyondChance(host, one);
  noise(host, one);
  factRows(host, one);
}

/** Which single effects stand out: of what was not told, as many as chance lets. */
function beyondChance(host, one) {
  const rows = one.effects.kinds.flatMap((kind) =>
    WHOSE.filter(([who]) => kind.beyond[who] !== null).map(([who, label]) => ({
      label: `${kindOf(kind.kind).label}: ${label}`,
      class: classOf(kind.kind, who),
      value: [kind.beyond[who], null, null],
      marks: [{ value: 0.05, class: "chance", label: "by chance" }],
    })),
  );
  if (!rows.length) return;
  add(host, el("h3", {}, "Effects beyond chance"));
  rowChart(host, {
    rows,
    bars: true,
    xLabel: "share of the effects",
    told: "effects beyond chance",
  });
  add(
    host,
    el(
      "figcaption",
      {},
      "The share of single effects, of a fact on a question, whose 95 % interval (jackknifed as above) leaves out zero; the dashed mark is the one in twenty that chance alone would have, or fewer, since jackknifed intervals are cautious.",
    ),
  );
}

const unitOf = (one) => (one.metric === "accuracy" ? "share of right answers" : "nats");

function effectsCaption(one) {
  const { effects } = one;
  const fitted =
    effects.method === "least_squares"
      ? "All effects were fitted at once, by least squares."
      : `Each fact was looked at by itself (marginal effects): ${plural(one.n_subsets.train, "subset")} are too few to fit ${plural(effects.n_facts, "fact")} at once, and the effects of the others are noise here.`;
  const relative = effects.fixed_total
    ? " Every subset has as many documents: an effect is that of one document in place of one about other entities, whose own mean effect is zero by construction and not drawn; what every document does alike cannot be seen."
    : "";
  const interval =
    effects.rows === "runs"
      ? " Each subset lacks one fact; lines are 95 % jackknife intervals over runs, so over seeds, for these very subsets, with the few degrees of freedom of the runs that lack a fact."
      : " Lines are 95 % jackknife intervals over subsets, and with them over seeds, for these questions; no line: too few subsets to say.";
  const untold = effects.n_untold
    ? ` ${plural(effects.n_untold, "fact")} in which ${effects.rows === "runs" ? "no subsets differ" : "at most one subset differs from the others"} ${effects.n_untold === 1 ? "is" : "are"} left out.`
    : "";
  return `How to read: the mean change of the outcome for one more document of a fact, over questions and facts. ${fitted}${relative}${interval}${untold}`;
}

function noise(host, one) {
  add(host, el("h3", {}, "Signal of the documents, noise of the seeds"));
  rowChart(host, {
    bars: true,
    xLabel: "share of the variance of a subset's mean",
    told: "reliability",
    rows: one.effects.kinds.map((kind) => ({
      label: kindOf(kind.kind).label,
      told: kind.kind,
      class: kindOf(kind.kind).class,
      value: [kind.reliable, null, null],
      marks: [{ value: kind.explained, class: "ceiling", label: "predicted by facts" }],
      more: ` · standard deviation between subsets ${number(kind.signal)}, between seeds of one ${number(kind.noise)} ${unitOf(one)}`,
    })),
  });
  add(
    host,
    el(
      "figcaption",
      {},
      "Bars: the share that is due to the documents and not to the order of the data, of the median question (analysis of variance, an estimate below zero counted as zero; unknown with one run a subset). " +
        (one.effects.kinds.some((kind) => kind.explained !== null)
          ? "The mark: the share that a datamodel by facts (ridge) predicts of subsets that were left out. More than the bar cannot be predicted; below zero the plain mean does better."
          : ""),
    ),
    folded(`noise ${one.experiment}`, "The same numbers as a table", () =>
      plainTable(one.effects.kinds, [
        { label: "asked", show: (kind) => kind.kind },
        { label: "questions", number: true, show: (kind) => number(kind.n_questions, 6) },
        ...WHOSE.map(([who, label]) => ({
          label,
          number: true,
          show: (kind) => (kind[who] ? endsText(kind[who]) : "–"),
        })),
        ...["signal", "noise", "reliable", "explained"].map((key) => ({
          label: key,
          number: true,
          show: (kind) => number(kind[key]),
        })),
      ]),
    ),
  );
}

function factRows(host, one) {
  const facts = sorted(
    one.effects.facts.filter((fact) => fact.own),
    (fact) => fact.own[0],
    true,
  );
  if (!facts.length) return;
  const shown = facts.length <= MOST_FACTS ? facts : [...facts.slice(0, MOST_FACTS / 2), ...facts.slice(-MOST_FACTS / 2)];
  add(host, el("h3", {}, "Every fact, on its own questions"));
  rowChart(host, {
    xLabel: `effect of one more document, ${unitOf(one)}`,
    told: "effects of facts on their own questions",
    rows: shown.map((fact) => ({
      label: `${fact.relation.replaceAll("_", " ")}: ${named(fact.entity)}`,
      value: fact.own,
      marks: [{ value: fact.others ? fact.others[0] : null, class: "beside", label: "on others' questions" }],
      more: ` · ${plural(fact.n_questions, "question")}`,
    })),
  });
  add(
    host,
    el(
      "figcaption",
      {},
      `${shown.length < facts.length ? `The ${MOST_FACTS / 2} facts with the largest and with the smallest effects of ${facts.length}. ` : ""}The short grey mark is the same fact's mean effect on questions about other entities. With so many lines, one in twenty misses the truth by chance alone.`,
    ),
    folded(`facts ${one.experiment}`, `All ${one.effects.facts.length} facts as a table`, () =>
      plainTable(one.effects.facts, [
        { label: "fact", show: (fact) => fact.label },
        { label: "questions", number: true, show: (fact) => number(fact.n_questions, 6) },
        { label: "on its own", number: true, show: (fact) => (fact.own ? endsText(fact.own) : "–") },
        { label: "on others", number: true, show: (fact) => (fact.others ? endsText(fact.others) : "–") },
      ]),
    ),
  );
}

/** Bars of the LDS, the best on top, a kind of question at a time. */
function ldsBars(host, scores, key, nSubsets, baselines = new Set()) {
  const kinds = [...new Set(scores.map((one) => one.kind))].sort(
    (a, b) => (b === "all") - (a === "all") || byKind(a, b),
  );
  add(
    host,
    chosenOf(
      key,
      "LDS of questions",
      kinds.map((kind) => [kind, kind === "all" ? "all questions" : kindOf(kind).label]),
      (box, kind) => {
        const own = sorted(scores.filter((one) => one.kind === kind), (one) => one.interval[0], true);
        rowChart(box, {
          bars: true,
          xLabel: "LDS (Spearman), mean over questions",
          told: `LDS, ${kind} questions`,
          rows: own.map((one) => ({
            label: one.name,
            class: one.name.startsWith("datamodel")
              ? "k-two_hop"
              : baselines.has(one.name)
                ? "k-control"
                : "k-trained",
            value: one.interval,
            marks: [
              { value: one.ceiling, class: "ceiling", label: "ceiling" },
              { value: one.chance, class: "chance", label: "by chance below" },
            ],
            more: ` · p ${number(one.p_value)} · Pearson ${number(one.pearson)} · ${plural(one.n_questions, "question")}`,
          })),
        });
      },
    ),
    el(
      "figcaption",
      {},
      `The rank correlation, over ${plural(nSubsets, "held-out subset")}, of what was predicted and what runs answered; thin lines are 95 % intervals over subsets and entities. The solid mark is the ceiling: what a perfect predictor would have, given the noise of the seeds${scores.some((one) => one.ceiling !== null) ? "" : " (unknown: one run a subset)"}. By chance, 95 % of the means lie below the dashed mark.`,
    ),
  );
}
