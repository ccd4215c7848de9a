"""The settings file of Slurm: what is accepted, and what every refusal names."""

import pytest

from launcher.engine import EngineError
from launcher.slurm_settings import SlurmSettings

FULL = """
partition = "gpu"
time = "1-12:00:00"
account = "lab"
qos = "normal"
constraint = "a100"
exclude = "n[7-9]"
gres = "gpu:a100:{gpus}"
cpus_per_task = 8
mem = "64G"
signal_seconds = 300
max_in_flight = 20
extra = ["--mail-type=FAIL", "--exclusive"]
"""


def read(tmp_path, text):
    path = tmp_path / "slurm.toml"
    path.write_text(text, encoding="utf-8")
    return SlurmSettings.from_toml(path)


def test_a_file_becomes_sbatch_s_flags(tmp_path):
    settings = read(tmp_path, FULL)
    assert settings.max_in_flight == 20
    flags = settings.flags(gpus=2)
    assert {
        *("--partition=gpu", "--time=1-12:00:00", "--account=lab", "--qos=normal"),
        *("--constraint=a100", "--exclude=n[7-9]", "--gres=gpu:a100:2", "--cpus-per-task=8"),
        *("--mem=64G", "--signal=B:USR1@300", "--requeue", "--open-mode=append", "--nodes=1"),
    } <= set(flags)
    assert flags[-2:] == ["--mail-type=FAIL", "--exclusive"]


def test_the_defaults_leave_all_to_the_site_but_the_gpus(tmp_path):
    settings = read(tmp_path, "")
    assert settings == SlurmSettings()
    assert "--gres=gpu:1" in settings.flags(gpus=1)
    assert "--signal=B:USR1@120" in settings.flags(gpus=1)
    without = settings.flags(gpus=0)
    assert not [flag for flag in without if flag.startswith(("--gres", "--partition", "--time"))]


@pytest.mark.parametrize("time", ["90", "90:30", "08:00:00", "2-0", "2-12:30", "UNLIMITED"])
def test_times_as_sbatch_takes_them(tmp_path, time):
    assert f"--time={time}" in read(tmp_path, f'time = "{time}"').flags(1)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('partitions = "gpu"', ["'partitions'", "did you mean 'partition'", "max_in_flight"]),
        ("nodes = 2", ["'nodes'", "known keys", "nodelist"]),
        ("time = 08:00:00", ["time must be a text in quotes"]),
        ('time = "8 hours"', ["'8 hours'", "08:00:00"]),
        ("mem = 64", ["mem must be a text", "64"]),
        ('cpus_per_task = "8"', ["cpus_per_task must be a whole number", "'8'"]),
        ("cpus_per_task = true", ["cpus_per_task must be a whole number"]),
        ("max_in_flight = 0", ["max_in_flight must be at least 1, not 0"]),
        ('gres = "gpu:1"', ["'gpu:1'", "{gpus}"]),
        ('extra = "--exclusive"', ["extra must be a list of texts"]),
        ('extra = ["exclusive"]', ["'exclusive' is no flag"]),
        ('extra = ["--job-name=mine"]', ["--job-name=mine", "the launcher sets that itself"]),
        ('extra = ["-Jmine"]', ["-Jmine", "the launcher sets that itself"]),
        ('partition = ""', ["partition must be a text"]),
        ("partition = ", ["is not TOML"]),
        ('mem = 1\ncpus_per_task = "a"', ["mem must", "cpus_per_task must"]),
    ],
)
def test_a_fault_names_file_key_and_remedy(tmp_path, text, named):
    with pytest.raises(EngineError) as caught:
        read(tmp_path, text)
    for part in [str(tmp_path / "slurm.toml"), *named]:
        assert part in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(EngineError, match=r"absent\.toml: No such file"):
        SlurmSettings.from_toml(tmp_path / "absent.toml")
