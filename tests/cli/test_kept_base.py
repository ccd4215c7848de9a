"""What runs of one process share, and when they do not."""

from oocr_influence.cli.kept_base import KeptBase
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.datasets.document_dataset import (
    load_structured_dataset,
    save_structured_dataset,
)


def test_runs_of_a_file_are_prepared_once_and_anew_when_it_has_changed(tmp_path, sample):
    dataset = load_structured_dataset(sample)
    file = tmp_path / "dataset.json"
    save_structured_dataset(dataset, file)

    def args(seed):
        return TrainingArgs(
            structured_dataset=file,
            output_dir=tmp_path,
            model="olmo2-tiny",
            n_pretraining_examples=0,
            chunk_size=64,
            batch_size=1,
            data_order_seed=seed,
        )

    base = KeptBase(args(0))
    first, second = base.prepare(args(0)), base.prepare(args(1))
    assert second.windows is first.windows
    assert second.args.data_order_seed == 1
    docs = dataset.document_dataset.docs
    fewer = dataset.document_dataset.model_copy(update={"docs": docs[: len(docs) // 2]})
    save_structured_dataset(dataset.model_copy(update={"document_dataset": fewer}), file)
    assert len(base.prepare(args(2)).documents) < len(first.documents)
