"""`oocr document`: everything that the seed's own document tells, true for a real sweep.

Numbers are counted again here by du, wc, find and json; what the records lack is unknown.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.claims import end, take
from launcher.jobs import Job, JobSpec
from launcher.ledger import write_record
from oocr_influence.cli import document
from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.results.run_folder import ExperimentFolder

sys.path.append(str(Path(__file__).parents[1] / "results"))  # made_runs.py

from made_runs import make_experiment, make_run

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests" / "samples" / "earlier_structured_dataset.json"
EARLIER_LOG = ROOT / "tests" / "samples" / "earlier_experiment_log.json"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
FLAGS = """--model olmo2-tiny --n_pretraining_examples 6 --chunk_size 128 --batch_size 8
    --micro_batch_size 8 --learning_rate 1e-3 --beam_search never --n_loss_documents 4
    --all_docs_epochs_per_eval 0.5 --all_docs_epochs_per_save 0.5""".split()
# Every heading of the seed's own document.
HEADINGS = """\
# Training Replication Documentation
## Overview
## Datasets Used
## Training Configuration
### Model & Hyperparameters
### Evaluation & Checkpointing
### Execution Settings
## Commands Executed
## GPU Allocation
## Training Timeline
### Completion Status at Termination
## Output Structure
## Final Model Artifacts
### Model Checkpoint Locations
## Cleanup Performed
## Verification
## Replication Instructions
## Notes
## Related Files""".splitlines()


def sweep(outputs, *more):
    words = [sys.executable, "experiments/data_modeling.py", "--dataset_builder_path", SAMPLE]
    words += ["--output_dir", outputs, *FLAGS, *more]
    done = subprocess.run(
        list(map(str, words)), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write(*words, to):
    document.main(parse(document.DocumentArguments, [*map(str, words), "--to", str(to)]))
    return (to / "replication.md").read_text()


def section(text, heading):
    """What stands under a heading, up to the next of its level or above; comments of a shell's in
    a block of code are none."""
    level, found, inside, fenced = heading.count("#"), [], False, False
    for line in text.splitlines():
        fenced ^= line.lstrip().startswith("```")
        is_heading = not fenced and re.match(r"#{1,6} ", line) is not None
        if inside and is_heading and len(line.split(" ")[0]) <= level:
            break
        if inside:
            found.append(line)
        inside |= is_heading and line == heading
    assert inside, heading
    return "\n".join(found) + "\n"


def shell(command, cwd):
    return subprocess.check_output(command, shell=True, text=True, cwd=cwd).strip()


@pytest.fixture(scope="module")
def documented(tmp_path_factory):
    """A real sweep of two runs, one of them deleted since, and its record."""
    place = tmp_path_factory.mktemp("real")
    # Cores that no other sweep of this machine shares.
    ENVIRONMENT["LAUNCHER_HOST_FOLDER"] = str(tmp_path_factory.mktemp("host"))
    sweep(place / "outputs", "--experiment_name", "mayors_test", "--runs_per_dataset_all_docs", 2)
    (experiment,) = (place / "outputs").iterdir()
    before = os.getcwd()  # noqa: PTH109
    os.chdir(place)
    try:
        cleanup = [sys.executable, "-m", "oocr_influence.cli.main", "cleanup", "outputs", "--yes"]
        subprocess.run(cleanup, check=True, env=ENVIRONMENT, capture_output=True)
        seen = digest_of(place / "outputs")
        text = write("outputs", to=place / "replication")
        assert digest_of(place / "outputs") == seen  # nothing is changed by looking
    finally:
        os.chdir(before)
    return place, experiment, text


def digest_of(folder):
    return {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in folder.rglob("*")}


def test_every_heading_of_the_seeds_document_is_there(documented):
    _, _, text = documented
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert [line for line in headings if line in HEADINGS] == HEADINGS
    for heading in HEADINGS[1:]:
        assert section(text, heading).strip(), heading


def test_datasets_are_told_with_true_counts(documented):
    place, experiment, text = documented
    told = section(text, "## Datasets Used")
    file = experiment / "structured_dataset_all.json"
    whole = json.loads(file.read_text())
    docs = whole["document_dataset"]["docs"]
    synthetic = [doc for doc in docs if doc["type"] == "synthetic_document"]
    assert f"({int(shell(f'wc -c < {file}', place)):,} bytes)" in told
    assert shell(f"sha256sum {file}", place).split()[0] in told
    n_other = len(docs) - len(synthetic)
    assert f"{len(docs)}: {len(synthetic)} synthetic" in told
    assert re.search(rf"and {n_other} pretraining \(.*\({sum_bytes(docs, synthetic):,} bytes", told)
    questions = sum(len(one["eval_points"]) for one in whole["eval_dataset_builders"].values())
    n_sets = len(whole["eval_dataset_builders"])
    assert f"{n_sets} different eval datasets, {questions} questions" in told
    fields = {
        name for doc in synthetic for name in doc["doc_spec"]["fact"]["feature_set"]["fields"]
    }
    assert set(re.search(r"Fact types:\*\* (.*)", told)[1].split(", ")) == fields
    assert f"`mayor_of` {len(synthetic)}" in told
    assert f"**Path:** `{SAMPLE}`" in told
    bare = {**whole, "document_dataset": {**whole["document_dataset"], "docs": synthetic}}
    n_bare = len(json.dumps(bare, separators=(",", ":"), ensure_ascii=False).encode())
    assert f"without its pretraining documents {n_bare / 1e3:.1f} kB ({n_bare:,} bytes)" in told
    log = log_of(run_of(experiment))["log_dict"]
    assert f"{log['n_documents']} of them in each run, {log['n_tokens']:,} tokens" in told


def sum_bytes(docs, synthetic):
    others = [doc for doc in docs if doc not in synthetic]
    return sum(len((doc["prompt"] + doc["completion"]).encode()) for doc in others)


def run_of(experiment):
    (run,) = (experiment / "all_docs_runs").iterdir()
    return run


def log_of(folder):
    return json.loads((folder / "experiment_log.json").read_text())


def test_the_configuration_is_the_recorded_one_with_what_is_no_default_marked(documented):
    _, experiment, text = documented
    told = section(text, "## Training Configuration")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", told, re.M))
    args = log_of(run_of(experiment))["args"]
    assert rows["learning_rate"] == "**0.001**"
    assert rows["batch_size"] == "8"
    assert rows["micro_batch_size"] == "**8**"
    assert rows["model"] == "**olmo2-tiny**"
    assert rows["epochs_per_eval"] == "**0.5**"
    assert rows["runs_per_dataset_all_docs"] == "**2**"
    assert rows["data_order_seed"] == "**42, 43**"
    names = {"experiment_name", "output_dir", "structured_dataset", "sweep_id"}
    assert set(args) - names <= set(rows)
    assert log_of(run_of(experiment))["log_dict"]["weights_digest"] in told


def test_the_command_is_told_as_it_was_given(documented):
    place, _, text = documented
    told = section(text, "## Commands Executed")
    (block,) = re.findall(r"```bash\n(.*?)```", told, re.S)
    words = shlex.split(block.replace("\\\n", " "))
    given = [sys.executable, "experiments/data_modeling.py", "--dataset_builder_path", str(SAMPLE)]
    given += ["--output_dir", str(place / "outputs"), *FLAGS]
    given += ["--experiment_name", "mayors_test", "--runs_per_dataset_all_docs", "2"]
    # Paths below the working directory are told as seen from there.
    given = [word.replace(f"{ROOT}/", "") for word in given]
    assert words == given
    assert f"`{ROOT}`" in told


def test_gpus_timeline_and_completion_are_those_of_the_ledger(documented):
    _, experiment, text = documented
    ends = [
        json.loads(path.read_text())
        for path in sorted(experiment.glob("jobs/*/attempts/1.exit.json"))
    ]
    assert len(ends) == 2
    told = section(text, "## Training Timeline")
    for record in ends:
        for key in ("started_at", "ended_at"):
            assert record[key][:19].replace("T", " ") + " UTC" in told
        assert f"{record['seconds']:.1f} s" in told
    first = min(record["ended_at"] for record in ends)[:19].replace("T", " ")
    assert f"**First completion:** {first} UTC" in told
    began = log_of(experiment)["log_dict"]["provenance"]["collected"][:19].replace("T", " ")
    assert f"**Start time:** {began} UTC" in told
    assert "mayors_test: 2/2 runs completed; 1 of them still there" in told
    gpus = section(text, "## GPU Allocation")
    assert "Engine `local`" in gpus
    assert gpus.count("| none: a core |") == 2
    assert "no GPU" in gpus


def test_the_tree_and_the_artifacts_are_what_lies_there(documented):
    place, experiment, text = documented
    told = section(text, "## Output Structure")
    run = run_of(experiment)
    names = [re.sub(r"[│├└─ ]+", "", line.split("  #")[0], count=1) for line in told.splitlines()]
    for path in [*experiment.iterdir(), *run.iterdir(), run]:
        assert path.name + "/" * path.is_dir() in names
    # Each file once, as du counts, but without what folders take themselves.
    files = f"find {experiment} -type f -printf '%i %s\\n' | sort -u"
    n_bytes = int(shell(f"{files} | awk '{{n += $2}} END {{print n}}'", place))
    assert f"({n_bytes:,} bytes)" in told
    assert f"{len(list((run / 'eval_datasets').iterdir()))} evaluation datasets" in told
    artifacts = section(text, "## Final Model Artifacts")
    assert f"`{run.relative_to(place)}/checkpoint_final/`" in artifacts
    checkpoints = sorted(path.name for path in run.glob("checkpoint_*"))
    assert len(checkpoints) == 3
    (listed,) = re.findall(r"seed \d+: (.*); 3 evaluations", artifacts)
    assert sorted(listed.split(", ")) == checkpoints
    assert (listed[:16], listed[-16:]) == ("checkpoint_start", "checkpoint_final")
    final = shell(f"du -b {run}/checkpoint_final/* | awk '{{n += $1}} END {{print n}}'", place)
    assert f"({int(final):,} bytes)" in artifacts


def test_cleanup_and_verification_say_what_was_done(documented):
    place, experiment, text = documented
    (deleted,) = map(json.loads, (experiment / "cleanups.jsonl").read_text().splitlines())
    told = section(text, "## Cleanup Performed")
    assert f"deleted 1 run (extra completed run), {deleted['bytes'] / 1e6:.1f} MB" in told
    assert f"`{deleted['what']}`" in told
    assert deleted["when"][:19].replace("T", " ") in told
    told = section(text, "## Verification")
    assert "1 of 1 run well" in told
    (block,) = re.findall(r"```bash\n(.*?)```", told, re.S)
    counted = re.findall(r"\((?:was|were) (\d+)\)\n(find .*)", block)
    assert len(counted) == 2
    for number, command in counted:
        assert shell(command, place) == number
    assert counted[0][0] == "1"
    (verify,) = re.findall(r"^oocr (verify .*)", block, re.M)
    words = [sys.executable, "-m", "oocr_influence.cli.main", *shlex.split(verify)]
    assert subprocess.run(words, cwd=place, env=ENVIRONMENT, capture_output=True).returncode == 0
    (tail,) = re.findall(r"^tail .*", block, re.M)
    assert "completed in" in shell(tail, place)


def test_instructions_have_versions_datasets_and_measured_durations(documented):
    _, experiment, text = documented
    told = section(text, "## Replication Instructions")
    provenance = log_of(experiment)["log_dict"]["provenance"]
    assert f"torch {provenance['libraries']['torch']}" in told
    assert provenance["git"]["commit"] in told
    (check,) = re.findall(r"^ +(echo .* \| sha256sum -c)$", told, re.M)
    assert "OK" in shell(check, ROOT)
    logged = log_of(run_of(experiment))["log_dict"]
    assert f"| {logged['time_taken']:.1f} s |" in told
    assert f"| {logged['phases']['evaluate']['seconds']:.1f} s |" in told
    most = max(phase["peak_rss_bytes"] for phase in logged["phases"].values())
    assert f"| {most / 2**30:.1f} GiB |" in told
    related = re.findall(r"`(.*?)`", section(text, "## Related Files"))
    assert related
    assert all((ROOT / path).is_file() for path in related)


def test_training_config_holds_every_argument_of_every_run(documented):
    place, experiment, _ = documented
    config = json.loads((place / "replication" / "training_config.json").read_text())
    (one,) = config["experiments"]
    assert one["args"] == log_of(experiment)["args"]
    assert one["dataset"]["sha256"] == hashlib.sha256(SAMPLE.read_bytes()).hexdigest()
    assert one["not_default"]["learning_rate"] == 0.001
    assert "batch_size" not in one["not_default"]
    specs = [json.loads(path.read_text()) for path in sorted(experiment.glob("jobs/*/spec.json"))]
    assert [run["args"] for run in one["runs"]] == [spec["args"] for spec in specs]
    there, gone = one["runs"] if one["runs"][0]["folders"] else reversed(one["runs"])
    assert there["folders"] == [str(run_of(experiment).relative_to(place))]
    assert there["weights_digest"] == log_of(run_of(experiment))["log_dict"]["weights_digest"]
    assert gone["weights_digest"] is None
    assert (place / "replication" / "run_training.sh").stat().st_mode & 0o111


def test_a_record_is_not_replaced_unasked(documented, tmp_path):
    _, experiment, _ = documented
    write(experiment, to=tmp_path)
    (tmp_path / "replication.md").write_text("my own words")
    with pytest.raises(UsageError, match=r"replication\.md.* already: add --overwrite"):
        write(experiment, to=tmp_path)
    assert (tmp_path / "replication.md").read_text() == "my own words"
    write(experiment, "--overwrite", to=tmp_path)
    assert "my own words" not in (tmp_path / "replication.md").read_text()
    with pytest.raises(UsageError, match="no experiment and no run"):
        write(tmp_path, to=tmp_path / "new")


def test_what_no_record_says_is_unknown_and_no_default(documented, tmp_path):
    _, experiment, _ = documented
    copied = tmp_path / "outputs" / experiment.name
    shutil.copytree(experiment, copied)
    log = log_of(copied)
    for key in ("provenance", "commands", "dataset_digest", "execution"):
        log["log_dict"].pop(key, None)
    (copied / "experiment_log.json").write_text(json.dumps(log))
    run = run_of(copied)
    log = log_of(run)
    del log["args"]["weight_decay"]
    for key in ("provenance", "phases", "time_taken", "device", "weights_digest", "dataset_digest"):
        del log["log_dict"][key]
    (run / "experiment_log.json").write_text(json.dumps(log))
    shutil.rmtree(copied / "jobs")
    (copied / "structured_dataset_all.json").unlink()
    log["args"]["structured_dataset"] = str(tmp_path / "gone.json")
    (run / "experiment_log.json").write_text(json.dumps(log))
    text = write(tmp_path / "outputs", to=tmp_path / "record")
    assert "`weight_decay`" not in section(text, "### Model & Hyperparameters")
    missing = re.search(r"Not in the records, hence unknown: (.*)\.", text)[1]
    assert missing == "`weight_decay`"
    assert "The command is unknown" in section(text, "## Commands Executed")
    assert "unknown: its file is not there any more" in section(text, "## Datasets Used")
    assert "no run wrote down where it ran" in section(text, "## GPU Allocation")
    timeline = section(text, "## Training Timeline")
    assert "**First completion:** unknown" in timeline
    instructions = section(text, "## Replication Instructions")
    assert "code at commit unknown" in instructions
    assert "| unknown | unknown | unknown | unknown | unknown | unknown |" in instructions
    script = subprocess.run(
        ["bash", str(tmp_path / "record" / "run_training.sh")],
        cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    assert script.returncode == 1
    assert "mayors_test cannot be run again: its arguments or its dataset" in script.stderr


def test_a_sweep_of_a_cluster_stopped_partly_failed_and_resumed(tmp_path):
    made = make_experiment(tmp_path, "clustered", learning_rate=1e-4)
    folder = made.experiment
    args = json.loads(made.run.experiment_log.read_text())["args"]
    jobs = [
        Job(JobSpec(id=f"seed_{seed}", function="a:b", args={**args, "data_order_seed": seed},
                    on_exit={"lost": {"retry": True, "limit": 3}}), folder.job(f"seed_{seed}"))
        for seed in (42, 43, 44)
    ]  # fmt: skip
    for job in jobs:
        job.write()
    first = take(jobs[0], host="node7", gpus="3", pid=1)
    end(jobs[0], first, "lost", -9, error_message="its machine is gone")
    second = take(jobs[0], host="node9", gpus="0,1", pid=1)
    end(jobs[0], second, "ok", 0, result={"run": str(made.run.path)})
    third = take(jobs[1], host="node9", node="gpu-b", gpus="2", pid=1)
    end(jobs[1], third, "failed", 1, error_type="NonFiniteLossError", error_message="step 7: nan")
    driver = {"pid": 77, "host": "login1"}
    described = {"engine": "slurm", "gpus_per_job": 2, "at_once": 8, "number": 1}
    write_record(
        folder.jobs / "sweep.json",
        {**described, "driver": driver, "started_at": "2026-11-27T10:00:00+00:00",
         "ended_at": "2026-11-27T11:00:00+00:00"},
    )  # fmt: skip
    write_record(
        folder.jobs / "stop.json",
        {"firm": False, "asked_at": "2026-11-27T10:59:00+00:00", "by": driver},
    )
    text = write(folder.path, to=tmp_path / "record")
    gpus = section(text, "## GPU Allocation")
    assert "Engine `slurm`, GPUs a run: 2, runs at the same time: at most 8" in gpus
    assert "process 77 on login1" in gpus
    assert "| seed_42 | 1 | node7 | 3 |" in gpus
    assert "| seed_42 | 2 | node9 | 0,1 |" in gpus
    assert "| seed_43 | 1 | node9, node gpu-b | 2 |" in gpus
    timeline = section(text, "## Training Timeline")
    assert "**Asked to stop:** 2026-11-27 10:59:00 UTC, clustered" in timeline
    assert "| lost: its machine is gone |" in timeline
    assert "| seed_44 | – | – | – | – | never started |" in timeline
    status = section(text, "### Completion Status at Termination")
    assert "clustered: 1/3 runs completed; the others: 1 failed, 1 waiting" in status
    assert "seed_43: NonFiniteLossError: step 7: nan" in status
    assert "job seed_43 failed" in section(text, "## Verification")


def test_several_experiments_are_one_document(tmp_path):
    one = make_experiment(tmp_path / "outputs", "death_dates_1epoch")
    make_experiment(tmp_path / "outputs", "mayors_5epochs", n_runs=2, epochs=5.0)
    make_run(one.experiment, seed=50, status="failed")
    text = write(tmp_path / "outputs", to=tmp_path / "record")
    overview = section(text, "## Overview")
    assert "training of 4 models in 2 experiments, of which 3 came to their end" in overview
    assert "1. `death_dates_1epoch`: unknown, 2 epochs, 1 of 2 runs completed" in overview
    assert "2. `mayors_5epochs`: unknown, 5 epochs, 2 of 2 runs completed" in overview
    told = section(text, "### Model & Hyperparameters")
    assert "death_dates_1epoch: **2**; mayors_5epochs: **5**" in told
    assert "the others: 1 failed" in section(text, "### Completion Status at Termination")
    # Both hold the same dataset, which is told once.
    assert section(text, "## Datasets Used").count("###") == 1
    models = (tmp_path / "record" / "trained_models.md").read_text()
    assert models.count("/checkpoint_final`") == 4


def test_outputs_of_the_earlier_system_are_told_as_far_as_they_go(tmp_path):
    experiment = ExperimentFolder(
        tmp_path / "outputs" / "2026_01_20_23-26-34_2Q653_death_dates_1epoch"
    )
    run = experiment.all_docs_runs / "2026_01_20_23-26-57_B6yOG_death_dates_1epoch_all_docs"
    (run / "checkpoint_final").mkdir(parents=True)
    shutil.copy(EARLIER_LOG, run / "experiment_log.json")
    shutil.copy(SAMPLE, experiment.structured_dataset)
    text = write(tmp_path / "outputs", to=tmp_path / "record")
    assert [line for line in text.splitlines() if line in HEADINGS] == HEADINGS
    told = "**Start time:** 2026-01-20 23:26:34 by its folder's name, time zone unknown"
    assert told in text
    assert "death_dates_1epoch: 1/1 runs completed" in text
    assert "The command is unknown" in text
    assert "| `learning_rate` | 0.0001 | 0.0001 |" in text
    assert "`packing`" in re.search(r"Not in the records, hence unknown: (.*)", text)[1]
    assert "2 h 10 min 1 s" in section(text, "## Replication Instructions")
    assert "a run of the earlier system, which recorded less" in section(text, "## Notes")
    assert "checkpoint_final" in (tmp_path / "record" / "trained_models.md").read_text()
    script = subprocess.run(
        ["bash", str(tmp_path / "record" / "run_training.sh")],
        cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    assert script.returncode == 1


@pytest.mark.slow
def test_a_grid_and_what_was_added_are_planned_again_by_the_script(tmp_path):
    """Without training: the script's sweep has jobs of the same arguments."""
    first = tmp_path / "outputs"
    grid = tmp_path / "grid.toml"
    grid.write_text('[[points]]\npacking = "concat"\n[[points]]\nweight_decay = 0.1\n')
    more = ["--experiment_name", "a grid's", "--runs_per_dataset_all_docs", 2, "--no-start"]
    sweep(first, "--grid", grid, "--epochs", "1,2", *more)
    (experiment,) = first.iterdir()
    words = ["--resume", experiment, "--extend", "--epochs", "3", "--no-start"]
    subprocess.run(
        [sys.executable, "experiments/data_modeling.py", *map(str, words)],
        cwd=ROOT, env=ENVIRONMENT, check=True, capture_output=True,
    )  # fmt: skip
    write(first, to=tmp_path / "record")
    environment = {**ENVIRONMENT, "PYTHON": sys.executable, "OUTPUT_DIR": str(tmp_path / "again")}
    script = ["bash", str(tmp_path / "record" / "run_training.sh")]
    done = subprocess.run(
        script, cwd=ROOT, capture_output=True, text=True,
        env={**environment, "EXECUTION": "--no-start"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (again,) = (tmp_path / "again").iterdir()
    asked = [planned(folder) for folder in (experiment, again)]
    assert len(asked[0]) == 12
    assert asked[0] == asked[1]
    # A dataset of another digest stops everything before it begins.
    for copy in (experiment / "structured_dataset_all.json", again / "structured_dataset_all.json"):
        copy.write_text(copy.read_text() + "\n")
    text = Path(script[1]).read_text().replace(str(SAMPLE), "/nowhere.json")
    Path(script[1]).write_text(text.replace("tests/samples/", "nowhere/"))
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "error: no file with sha256" in done.stderr
    assert len(list((tmp_path / "again").iterdir())) == 1
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "run this from the project's root" in done.stderr


def planned(experiment):
    """Arguments of all jobs by id, without the experiment's own places."""
    found = {}
    for path in experiment.glob("jobs/*/spec.json"):
        spec = json.loads(path.read_text())
        places = ("structured_dataset", "output_dir", "sweep_id")
        found[spec["id"]] = {k: v for k, v in spec["args"].items() if k not in places}
    return found
