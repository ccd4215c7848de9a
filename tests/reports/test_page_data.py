"""What a page says, against the records read one by one."""

import json
import re
import shutil
from collections import Counter, defaultdict
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from page_runs import BREAKOUT, ENTITIES, SETS, make_outputs, records_of

from oocr_influence.reports.page.confusions import MOST_ANSWERS, confusions
from oocr_influence.reports.page.data import page_data
from oocr_influence.reports.page.questions import QuestionTable
from oocr_influence.reports.page.render import packed, render_page, script_json
from oocr_influence.reports.page.training import MOST_POINTS, _binned
from oocr_influence.results import collect, mean_interval
from oocr_influence.results.naming import unstamped
from oocr_influence.results.run_folder import ExperimentFolder, RunFolder

SAMPLE = Path(__file__).parents[1] / "samples" / "earlier_experiment_log.json"
CLOSE = pytest.approx


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return make_outputs(tmp_path_factory.mktemp("outputs"))


@pytest.fixture(scope="module")
def data(outputs):
    with collect(outputs) as collected:
        return page_data(collected)


@pytest.fixture(scope="module")
def records(outputs):
    return records_of(outputs)


def group_of(data, name):
    return next(group for group in data.head["groups"] if group["name"] == name)


def own(records, group, **wanted):
    wanted = {"experiment": group["experiment"], **wanted}
    return [row for row in records if all(row[key] == value for key, value in wanted.items())]


def run_means(rows, metric):
    by_run = defaultdict(list)
    for row in rows:
        by_run[row["run"]].append(row[metric])
    return [float(np.mean(by_run[run])) for run in sorted(by_run)]


@pytest.mark.parametrize("name", ["one", "two"])
def test_lines_are_means_of_runs_with_their_range(data, records, name):
    group = group_of(data, name)
    steps = [one["step"] for one in group["evaluations"]]
    assert steps == [0, 4, 8][: 3 if name == "one" else 2]
    places = {"asked": lambda row: "", "relation": lambda row: row["relation"]}
    seen = 0
    for line in group["lines"]:
        if line["split"] not in places:
            continue
        for metric in ("rank_tie_averaged", "accuracy", "loss", "prob", "rank"):
            series = line["series"][metric]
            for e, step in enumerate(steps):
                rows = own(records, group, step=step, asked=line["asked"])
                rows = [r for r in rows if places[line["split"]](r) == line["panel"]]
                means = run_means(rows, metric)
                assert series["mean"][e] == CLOSE(np.mean(means), rel=1e-4)
                assert series["low"][e] == CLOSE(min(means), rel=1e-4)
                assert series["high"][e] == CLOSE(max(means), rel=1e-4)
                if line["split"] == "asked":
                    assert [run[e] for run in series["runs"]] == CLOSE(means, rel=1e-4)
                seen += 1
        rows = own(records, group, step=0, asked=line["asked"])
        rows = [r for r in rows if places[line["split"]](r) == line["panel"]]
        assert line["n_questions"] == len(rows) / group["n_runs"]
    assert seen > 50


def test_forms_and_examples_are_panels_of_their_own(data, records):
    group = group_of(data, "one")
    panels = {(line["split"], line["panel"], line["asked"]): line for line in group["lines"]}
    line = panels["form", "question, first name", "trained: first names"]
    rows = own(records, group, step=8, answer_format="first_name")
    expected = np.mean([row["loss"] for row in rows])
    assert line["series"]["loss"]["mean"][2] == CLOSE(expected, rel=1e-4)
    line = panels["examples", "no examples", "trained"]
    rows = own(records, group, step=8, shots=0, asked="trained")
    expected = np.mean([row["rank"] for row in rows])
    assert line["series"]["rank"]["mean"][2] == CLOSE(expected, rel=1e-4)
    assert ("examples", "with examples", "trained: first names") in panels


def test_the_null_level_is_another_entitys_answer(data, records):
    group = group_of(data, "one")
    line = next(
        one for one in group["lines"] if (one["split"], one["asked"]) == ("asked", "trained")
    )
    expected = [
        np.mean([r["rank_swapped"] for r in own(records, group, step=step, asked="trained")])
        for step in (0, 4, 8)
    ]
    assert line["series"]["rank_tie_averaged"]["swapped"] == CLOSE(expected, rel=1e-4)
    assert "swapped" not in line["series"]["rank"]  # the swapped rank is tie-averaged


def test_the_heat_map_has_every_set_and_evaluation(data, records):
    for number, group in enumerate(data.head["groups"]):
        heat = data.detail["heat"][number]
        for row, place in zip(heat["values"]["rank_tie_averaged"], heat["sets"], strict=True):
            name = data.head["sets"][place]["name"]
            expected = [
                np.mean([r["rank_tie_averaged"] for r in own(records, group, step=s, set=name)])
                for s in (one["step"] for one in group["evaluations"])
            ]
            assert row == CLOSE(expected, rel=1e-3)


def test_chance_is_that_of_a_guess(data):
    group = group_of(data, "one")
    assert group["chance"] == {one[0]: (ENTITIES + 1) / 2 for one in SETS}
    assert {line["chance"] for line in group["lines"]} == {(ENTITIES + 1) / 2}


def test_sets_of_one_name_count_as_each_experiment_asked_them(tmp_path):
    """Ten entities here, four there: neither borrows the other's number or chance."""
    made = {}
    for name, n in (("ten", 10), ("four", 4)):
        experiment = ExperimentFolder.create(tmp_path, name)
        run = RunFolder.create(experiment.all_docs_runs, name, 1, 1e-4)
        records = [
            {
                "set": s,
                "kind": "trained",
                "relation": "r",
                "style": "qa",
                "answer_format": "default",
            }
            | {"index": i, "prompt": f"{s} {i}", "completion": f" {i}", "rank": 1.0, "loss": value}
            | {"rank_tie_averaged": value, "n_candidates": n * factor}
            for s, factor, value in (("small", 1, 2.0), ("large", 2, 3.0))
            for i in range(n // factor)
        ]
        sets = {
            s: {"n": n // factor, "mean_rank_tie_averaged": value}
            for s, factor, value in (("small", 1, 2.0), ("large", 2, 3.0))
        }
        at = {"step_num": 1, "epoch_num": 1.0, "eval_seconds": 1.0}
        run.write_evaluation("final", **at, eval_sets=sets, records=records)
        run.release()
        made[name] = n
    with pytest.warns(UserWarning, match="experiment_log"), collect(tmp_path) as collected:
        data = page_data(collected)
    for name, n in made.items():
        group = group_of(data, name)
        (line,) = [line for line in group["lines"] if line["split"] == "asked"]
        assert line["n_questions"] == n + n // 2
        weighted = (2.0 * n + 3.0 * (n // 2)) / (n + n // 2)
        assert line["series"]["rank_tie_averaged"]["mean"] == CLOSE([weighted], rel=1e-4)
        chance = ((n + 1) / 2 * n + (2 * n + 1) / 2 * (n // 2)) / (n + n // 2)
        assert line["chance"] == CLOSE(chance, rel=1e-4)
        assert group["ending"]["kinds"][0]["chance"] == CLOSE(chance, rel=1e-4)
        assert f"asked {n + n // 2} questions in 2 sets" in " ".join(group["sentences"])


@pytest.mark.parametrize(("name", "step"), [("one", 8), ("two", 4)])
def test_the_ending_has_means_intervals_and_entities(data, records, name, step):
    group = group_of(data, name)
    assert (group["ending"]["step"], group["ending"]["metric"]) == (step, "rank_tie_averaged")
    for kind in group["ending"]["kinds"]:
        rows = own(records, group, step=step, asked=kind["asked"])
        for key, metric in (("rank", "rank_tie_averaged"), ("accuracy", "accuracy")):
            expected = mean_interval(
                [row[metric] for row in rows],
                runs=[row["run"] for row in rows],
                entities=[row["entity"] for row in rows],
            )
            assert kind[key]["mean"] == CLOSE(np.mean([row[metric] for row in rows]), rel=1e-4)
            told = (kind[key]["low"], kind[key]["high"])
            assert told == CLOSE((expected.low, expected.high), rel=1e-4)
            assert kind[key]["n_questions"] == len(rows)
        by_entity = defaultdict(list)
        for row in rows:
            by_entity[row["entity"]].append(row["rank_tie_averaged"])
        expected = {entity: float(np.mean(ranks)) for entity, ranks in by_entity.items()}
        assert dict(kind["entities"]) == CLOSE(expected, rel=1e-4)
    assert data.head["entities"]["made_person_3"] == "person 3"


@pytest.mark.parametrize(
    ("entity", "label"),
    [
        ("made_person_3", "person 3"),
        ("made:place 3", "A · B"),
        ("e3b0c44298fc1c149afbf4c8996fb924", "A · B"),
        ("17", "A · B"),
        ("3f0c", "3f0c"),
    ],
)
def test_an_entity_is_called_by_words(entity, label):
    table = QuestionTable([{"name": "s", "world": "made"}, {"name": "t", "world": None}])
    table._labels[entity] = "A · B"
    assert table.label(entity) == label


def test_questions_are_averaged_over_the_groups_runs(data, records):
    asked = data.detail["questions"]
    for number, group in enumerate(data.head["groups"]):
        steps = [one["step"] for one in group["evaluations"]]
        told = asked["groups"][number]
        assert len(told["questions"]) == len(own(records, group, step=0)) / group["n_runs"]
        for i, q in enumerate(told["questions"]):
            prompt = asked["texts"][asked["prompt"][q]]
            rows = own(records, group, prompt=prompt)
            assert asked["texts"][asked["answer"][q]] == rows[0]["completion"]
            assert data.head["sets"][asked["set"][q]]["name"] == rows[0]["set"]
            for e, step in enumerate(steps):
                ranks = [r["rank_tie_averaged"] for r in rows if r["step"] == step]
                assert told["ranks"][i][e] == CLOSE(np.mean(ranks), abs=0.051)
            last = [row for row in rows if row["step"] == steps[-1]]
            assert told["accuracy"][i] == CLOSE(np.mean([r["accuracy"] for r in last]), abs=2e-3)
            assert told["low"][i] == min(r["rank_tie_averaged"] for r in last)
            assert told["high"][i] == max(r["rank_tie_averaged"] for r in last)


def firsts(row):
    """Each first-ranked candidate's part of one, by the loss a token."""
    losses = -np.array(row["candidate_logprobs"]) / np.array(row["candidate_n_tokens"])
    best = [
        text for text, x in zip(row["candidate_texts"], losses, strict=True) if x == min(losses)
    ]
    return {text: 1 / len(best) for text in best}


def test_confusions_count_first_answers_and_share_ties(data, records):
    asked = data.detail["questions"]
    for number, group in enumerate(data.head["groups"]):
        last = group["evaluations"][-1]["step"]
        for table in asked["groups"][number]["confusions"]:
            wanted = {"asked": table["asked"], "relation": table["relation"]}
            rows = own(records, group, step=last, answer_format=table["form"], **wanted)
            expected = Counter()
            for row in rows:
                for text, part in firsts(row).items():
                    expected[row["completion"], text] += part
            names = [asked["texts"][place] for place in table["answers"]]
            found = {(names[r], names[c]): n for r, c, n in table["cells"]}
            assert found == CLOSE(dict(expected), abs=6e-3)
            assert table["n"] == CLOSE(len(rows), abs=0.05)
            right = sum(n for (a, b), n in expected.items() if a == b)
            assert table["n_right"] == CLOSE(right, abs=0.05)


def test_the_first_answers_of_a_question_are_counted_over_runs(data, records):
    group, asked = group_of(data, "one"), data.detail["questions"]
    told = asked["groups"][data.head["groups"].index(group)]
    for i, q in enumerate(told["questions"]):
        rows = own(records, group, step=8, prompt=asked["texts"][asked["prompt"][q]])
        expected = Counter()
        for row in rows:
            expected.update(firsts(row))
        most = sorted(expected.values(), reverse=True)[:3]
        assert told["first"][i][1::2] == CLOSE(most, abs=6e-3)
        for place, n in zip(told["first"][i][::2], told["first"][i][1::2], strict=True):
            assert expected[asked["texts"][place]] == CLOSE(n, abs=6e-3)


def test_of_many_answers_those_missed_most_are_kept():
    n = MOST_ANSWERS + 5
    rows = [{"set": "s", "index": i, "completion": f"{i:03}"} for i in range(n)]
    first = {("s", i): [(f"{i:03}" if i < 5 else f"{(i + 1) % n:03}", 1.0)] for i in range(n)}
    described = {"s": {"asked": "trained", "relation": "r", "answer_format": None}}
    (table,) = confusions(rows, first, described)
    assert (table["n"], table["n_right"], table["n_answers"]) == (n, 5, n)
    assert len(table["answers"]) == MOST_ANSWERS
    assert not {f"{i:03}" for i in range(1, 5)} & set(table["answers"])


def test_losses_are_those_of_the_step_logs(data):
    told = group_of(data, "one")["training"]
    loss = told["series"]["loss"]
    assert (told["updates_a_point"], told["steps_per_epoch"]) == (1, 8)
    assert loss["steps"] == list(range(1, 9))
    assert loss["mean"] == CLOSE([2 / step + 0.43 for step in range(1, 9)], rel=1e-4)
    assert loss["low"] == CLOSE([2 / step + 0.42 for step in range(1, 9)], rel=1e-4)
    assert told["documents"]["trained"] == CLOSE([2.043, 1.543, 1.043])


def test_long_step_logs_are_averaged_in_pieces():
    values = {step: float(step) for step in range(1, 1001)}
    per_point = -(-1000 // MOST_POINTS)
    found = _binned([values, {k: v + 1 for k, v in values.items()}], per_point)
    assert len(found["steps"]) <= MOST_POINTS
    assert found["low"][0] == CLOSE(np.mean(range(1, per_point + 1)))
    assert found["mean"][0] == CLOSE(found["low"][0] + 0.5)
    assert found["steps"][0] == found["low"][0]


def test_phases_status_and_what_differs(data, outputs):
    one, two = group_of(data, "one"), group_of(data, "two")
    (train,) = one["phases"]
    assert train["seconds"] == {"mean": 43, "low": 42, "high": 44}
    assert train["memory"] == 44 * 2**20
    assert (one["status"], two["status"]) == ("3 completed", "1 failed")
    rates = {"one": 1e-4, "two": 3e-4}
    expected = {"learning_rate": [rates[group["name"]] for group in data.head["groups"]]}
    assert data.head["differences"] == expected
    text = " ".join(one["sentences"])
    assert "3 runs of made-up, fine-tuned on 12 documents (3,456 tokens an epoch)" in text
    assert "differ in data order seed (42, 43, 44), and in nothing else" in text
    assert f"Each was asked {len(SETS) * ENTITIES} questions in {len(SETS)} sets 3 times" in text
    assert "nothing here tells of other seeds" in " ".join(two["sentences"])
    (failure,) = data.head["failures"]
    assert failure["lines"][-1] == "RuntimeError: the disk said </script>"
    assert unstamped(failure["experiment"]) == "two"
    used = sum(run["disk"] for run in data.head["runs"])
    blocks = {path for path in outputs.glob("*/all_docs_runs/*/**/*") if path.is_file()}
    assert used == sum(path.stat().st_blocks * 512 for path in blocks)
    assert sum(data.head["disk"].values()) == used
    assert one["replay"]["command"] == "oocr a"
    assert one["replay"]["weights_digest"] is None


class Scripts(HTMLParser):
    """The script elements as a browser finds them."""

    def __init__(self):
        super().__init__()
        self.found, self._open = [], None

    def handle_starttag(self, tag, attributes):
        if tag == "script":
            self._open = (dict(attributes), [])
            self.found.append(self._open)

    def handle_endtag(self, tag):
        if tag == "script":
            self._open = None

    def handle_data(self, text):
        if self._open is not None:
            self._open[1].append(text)


def test_no_text_of_a_document_ends_its_script(data):
    page = render_page(data)
    parser = Scripts()
    parser.feed(page)
    assert len(parser.found) == 3
    text = "".join(parser.found[0][1])
    assert json.loads(text) == json.loads(json.dumps(data.head))
    assert not re.search(r"[<>&\u2028\u2029]", text)
    assert BREAKOUT not in page
    assert page.count("</script>") == 3
    assert any("the disk said </script>" in line for line in data.head["failures"][0]["lines"])


def test_texts_survive_their_escape():
    value = {"a": BREAKOUT, "]]>": ["<!--", "&amp;", "ü\u2029"]}
    assert json.loads(script_json(value)) == value
    assert packed(value) == packed(value)
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_json({"a": float("nan")})


def test_a_run_of_the_earlier_system(tmp_path):
    name = "2026_01_20_23-26-57_B6yOG_sample"
    run = tmp_path / "2026_01_20_23-26-34_2Q653_old" / "all_docs_runs" / name
    (run / "checkpoint_e1_s42").mkdir(parents=True)
    shutil.copy(SAMPLE, run / "experiment_log.json")
    with pytest.warns(UserWarning, match="left out"), collect(tmp_path) as collected:
        data = page_data(collected)
    (group,) = data.head["groups"]
    assert group["earlier"]
    assert group["chance"] == {}
    text = " ".join(group["sentences"])
    assert "revision stage1-step928646-tokens3896B" in text
    assert "documents whose number is unknown" in text
    assert [one["step"] for one in group["evaluations"]] == [1, 42]
    (line,) = [line for line in group["lines"] if line["split"] == "asked"]
    assert line["series"]["loss"]["mean"] == [3.1, 1.0]
    assert "rank_tie_averaged" not in line["series"]
    assert group["training"]["from_history"]
    assert group["training"]["series"]["loss"]["mean"] == [2.61, 2.2]
    assert group["replay"]["command"] is None
    assert any("pckl" in notice for notice in data.head["notices"])
    assert data.detail["questions"]["groups"][0]["confusions"] == []
    assert "</html>" in render_page(data)


def test_logs_with_pickles_and_numbers_that_are_none(tmp_path):
    run = tmp_path / "2026_01_20_23-26-34_2Q653_old" / "all_docs_runs"
    run = run / "2026_01_20_23-26-57_B6yOG_sample"
    (run / "checkpoint_e1_s42").mkdir(parents=True)
    log = json.loads(SAMPLE.read_text())
    log["args"]["weight_decay"] = float("nan")
    log["history"][0]["train_loss"] = float("inf")
    log["history"][1]["eval_results"]["name_mayor_eval_qa_1_no_fs"]["mean_loss"] = float("nan")
    log["log_dict"] |= {"total_steps": "pickled://saved_objects/9.pckl", "phases": "broken"}
    (run / "experiment_log.json").write_text(json.dumps(log))
    with pytest.warns(UserWarning, match="left out"), collect(tmp_path) as collected:
        data = page_data(collected)
    (group,) = data.head["groups"]
    assert group["args"]["weight_decay"] is None
    assert group["training"]["series"]["loss"]["mean"] == [None, 2.2]  # a gap in the line
    (line,) = [line for line in group["lines"] if line["split"] == "asked"]
    assert line["series"]["loss"]["mean"] == [3.1, None]
    assert "An unknown number of updates" in " ".join(group["sentences"])
    json.dumps([data.head, data.detail], allow_nan=False)


def test_a_run_that_has_answered_nothing_yet(tmp_path):
    run = RunFolder.create(tmp_path, "begun", 1, 1e-4)
    with pytest.warns(UserWarning, match="no experiment_log"), collect(run.path) as collected:
        data = page_data(collected)
    run.release()
    (group,) = data.head["groups"]
    assert (group["ending"], group["evaluations"], group["lines"]) == (None, [], [])
    assert "No evaluation has been recorded." in group["sentences"]
    assert data.head["main_metric"] is None
    assert "</html>" in render_page(data)


def test_runs_of_their_own_are_told_apart(tmp_path):
    runs = [RunFolder.create(tmp_path, name, 1, 1e-4) for name in ("same", "same", "other")]
    for run in runs:
        run.release()
    with pytest.warns(UserWarning, match="no experiment_log"), collect(tmp_path) as collected:
        names = [group["name"] for group in page_data(collected).head["groups"]]
    stamps = [run.name.partition("_same")[0] for run in runs[:2]]
    assert sorted(names) == sorted(["other", *(f"same ({stamp})" for stamp in stamps)])
