import subprocess
import sys

import pytest

from lmirl_jax import data
from lmirl_jax.data.seqio_library import seqio
from lmirl_jax.tasks import number_paths  # noqa: F401  (registers number_paths)
from lmirl_jax.types import UserError

GOOD = {"inputs": "one", "targets": "1"}


def test_exactly_one_of_name_and_data(write_jsonl):
    with pytest.raises(UserError, match="neither of MIXTURE_OR_TASK_NAME and DATA given"):
        data.get_task()
    with pytest.raises(UserError, match="both of MIXTURE_OR_TASK_NAME and DATA given"):
        data.get_task("number_paths", write_jsonl([GOOD]))
    with pytest.raises(UserError, match="VALIDATION_DATA goes with DATA"):
        data.get_task("number_paths", validation_data=write_jsonl([GOOD]))


def test_an_unknown_name_gets_the_nearest_and_the_import():
    with pytest.raises(UserError, match=r"'number_path': did you mean 'number_paths'\? .*gin file imports"):
        data.get_task("number_path")


def test_a_task_keeps_its_vocabulary_unless_a_path_replaces_it(shared_data):
    assert data.get_task("number_paths").vocab_size == 384
    path = str(shared_data / "t5_vocab" / "spiece.model")
    task = data.get_task("number_paths", vocabulary_path=path)
    assert task.vocab_size == 32128
    assert task.decode([*task.output_vocabulary.encode("a sum"), 1, 5, 0, 0]) == "a sum"
    assert data.get_task("number_paths").vocab_size == 384  # The registry's own is untouched.


def test_splits_of_a_task_and_of_a_file(write_jsonl):
    assert data.has_split(data.get_task("number_paths"), "validation")
    alone = data.get_task(data=write_jsonl([GOOD]))
    assert data.has_split(alone, "train") and not data.has_split(alone, "validation")
    both = data.get_task(data=write_jsonl([GOOD]), validation_data=write_jsonl([GOOD], "other.jsonl"))
    assert data.has_split(both, "validation")
    assert both.name == "examples"


def test_a_mixture_has_its_tasks_and_rates(make_task):
    make_task({"train": [("a", "b")]}, "first_letters", register=True)
    make_task({"train": [("c", "d")]}, "second_letters", register=True)
    seqio.MixtureRegistry.add("letters_mix", [("first_letters", 3), ("second_letters", 1)])
    try:
        task = data.get_task("letters_mix")
    finally:
        seqio.MixtureRegistry.remove("letters_mix")
    assert [part.name for part in task.tasks] == ["first_letters", "second_letters"]
    assert task.rates == (3.0, 1.0)


def test_a_mixture_of_vocabularies_is_refused(make_task):
    make_task({"train": [("a", "b")]}, "plain_letters", register=True)
    feature = seqio.Feature(seqio.ByteVocabulary(extra_ids=10))
    make_task(
        {"train": [("c", "d")]},
        "other_letters",
        register=True,
        output_features={"inputs": feature, "targets": feature},
    )
    seqio.MixtureRegistry.add("odd_mix", ["plain_letters", "other_letters"], default_rate=1)
    try:
        with pytest.raises(UserError, match="mixture odd_mix have different vocabularies for inputs"):
            data.get_task("odd_mix")
    finally:
        seqio.MixtureRegistry.remove("odd_mix")


def test_a_task_without_inputs_is_refused(make_task):
    feature = seqio.Feature(seqio.ByteVocabulary())
    make_task({"train": [("a", "b")]}, "targets_only", register=True, output_features={"targets": feature})
    with pytest.raises(UserError, match="task targets_only has the features targets and lacks 'inputs'"):
        data.get_task("targets_only")


def test_a_missing_tfds_folder():
    with pytest.raises(
        UserError, match="no folder at /no/such: --tfds_data_dir must name an existing folder"
    ):
        data.set_tfds_data_dir("/no/such")
    with pytest.raises(UserError, match="no folder at /no/such: --seqio_additional_cache_dirs"):
        data.add_cache_dirs(["/no/such"])


@pytest.mark.e2e
def test_importing_the_room_loads_no_tensorflow(repository):
    code = "import sys, lmirl_jax.data; sys.exit('tensorflow' in sys.modules or 'seqio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=repository, check=False).returncode == 0
