import hashlib
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from lmirl_jax import data
from lmirl_jax.data import fingerprints
from lmirl_jax.data import records as records_module
from lmirl_jax.data.records import tokenized_records
from lmirl_jax.data.seqio_library import seqio, tf
from lmirl_jax.types import UserError

TEXTS = {"train": [("a", "bc"), ("de", "f")], "validation": [("g", "h")], "none": []}


def test_records_are_read_as_they_were_written(make_task, tmp_path):
    found = tokenized_records(make_task(TEXTS), "train", str(tmp_path))
    assert len(found) == 2 and found.without_eos == 0
    np.testing.assert_array_equal(found.lengths, [[2, 3], [3, 2]])
    example = found.source[0]
    assert example.inputs.tolist() == [100, 1] and example.targets.tolist() == [101, 102, 1]
    assert example.features == {"inputs_pretokenized": "a", "targets_pretokenized": "bc"}


def weighing(weights):
    """A preprocessor that gives each example its weight."""
    table = tf.constant(weights)
    return lambda dataset: dataset.enumerate().map(lambda i, x: {**x, "weight": tf.gather(table, i)})


def test_weights_come_back_and_change_what_the_data_are(make_task, tmp_path):
    def made(weights, name):
        preprocessors = [
            weighing(weights),
            seqio.preprocessors.tokenize,
            seqio.preprocessors.append_eos,
        ]
        return tokenized_records(make_task(TEXTS, name, preprocessors=preprocessors), "train", str(tmp_path))

    found = made([0.5, 2.0], "one")
    assert [found.source[i].features["weight"] for i in range(2)] == [0.5, 2.0]
    assert found.weighted and not tokenized_records(make_task(TEXTS), "train", str(tmp_path)).weighted
    assert found.content != made([2.0, 0.5], "two").content
    with pytest.raises(UserError, match=r"task three, train, example 1: weight is -1\.0"):
        made([1.0, -1.0], "three")
    with pytest.raises(UserError, match=r"task four, train, example 0: weight is list, not a number"):
        made([[1.0], [1.0]], "four")


def test_other_features_come_back(make_task, tmp_path):
    def more(dataset):
        return dataset.map(
            lambda x: (
                x | {"number": 7, "names": [b"\xc3\xa4", b"b"], "share": 0.5, "raw": tf.constant(b"\xff")}
            )
        )

    task = make_task(
        TEXTS, preprocessors=[more, seqio.preprocessors.tokenize, seqio.preprocessors.append_eos]
    )
    features = tokenized_records(task, "train", str(tmp_path)).source[0].features
    assert features["number"] == 7 and features["names"] == ["ä", "b"] and features["share"] == 0.5
    assert features["raw"].encode("utf-8", "surrogateescape") == b"\xff"


def test_nothing_is_trimmed_and_missing_eos_is_counted(make_task, tmp_path):
    after_trim = [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos_after_trim]
    found = tokenized_records(make_task(TEXTS, preprocessors=after_trim), "train", str(tmp_path))
    np.testing.assert_array_equal(found.lengths, [[2, 3], [3, 2]])
    found = tokenized_records(make_task(TEXTS, preprocessors=after_trim[:1]), "train", str(tmp_path))
    assert found.without_eos == 2


def test_a_second_reading_writes_nothing(make_task, tmp_path, monkeypatch):
    first = tokenized_records(make_task(TEXTS), "train", str(tmp_path))
    monkeypatch.setattr(records_module, "prepare", None)
    second = tokenized_records(make_task(TEXTS), "train", str(tmp_path))
    assert first.folder == second.folder and first.content == second.content


def test_random_preprocessors_draw_the_same_again(make_task, tmp_path):
    @seqio.map_over_dataset(num_seeds=1)
    def jumble(example, seed):
        return example | {"draw": tf.random.stateless_uniform([], seed)}

    task = make_task(
        TEXTS, preprocessors=[jumble, seqio.preprocessors.tokenize, seqio.preprocessors.append_eos]
    )
    draws = [
        tokenized_records(task, "train", str(tmp_path / name)).source[0].features["draw"]
        for name in ("first", "second")
    ]
    assert draws[0] == draws[1]


def test_settings_and_vocabulary_are_part_of_the_key(make_task, tmp_path):
    def prefixed(text):
        return lambda dataset: dataset.map(lambda x: x | {"inputs": text + x["inputs"]})

    tokenize = [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos]
    wide = seqio.Feature(seqio.ByteVocabulary(extra_ids=5), add_eos=True)
    tasks = [
        make_task(TEXTS),
        make_task({**TEXTS, "train": [("a", "zz")]}),
        make_task(TEXTS, "renamed"),
        make_task(TEXTS, preprocessors=[prefixed("1 "), *tokenize]),
        make_task(TEXTS, preprocessors=[prefixed("2 "), *tokenize]),
        make_task(TEXTS, output_features={"inputs": wide, "targets": wide}),
    ]
    folders = {tokenized_records(task, "train", str(tmp_path)).folder for task in tasks}
    assert len(folders) == len(tasks)
    assert tokenized_records(tasks[0], "validation", str(tmp_path)).folder not in folders


MODULE = """
    import seqio, helper
    @seqio.map_over_dataset
    def shout(example):
        return example | {"inputs": helper.MARK + example["inputs"]}
"""


def test_a_change_in_the_users_code_is_seen(make_task, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def folder(mark):
        (tmp_path / "helper.py").write_text(f"def marked(): pass\nMARK = {mark!r}\n")
        (tmp_path / "user_tasks.py").write_text(textwrap.dedent(MODULE))
        for name in ("helper", "user_tasks"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        import user_tasks

        preprocessors = [user_tasks.shout, seqio.preprocessors.tokenize, seqio.preprocessors.append_eos]
        return tokenized_records(
            make_task(TEXTS, preprocessors=preprocessors), "train", str(tmp_path / "cache")
        ).folder

    first, second, third = folder("!"), folder("?"), folder("!")
    assert first == third != second


def test_a_jsonl_file_counts_by_its_content(write_jsonl, tmp_path):
    def content(line, folder):
        (tmp_path / folder).mkdir(exist_ok=True)
        task = data.get_task(data=write_jsonl([line], f"{folder}/lines.jsonl")).tasks[0]
        return tokenized_records(task, "train", str(tmp_path / "cache"))

    first = content({"inputs": "a", "targets": "b"}, "here")
    moved = content({"inputs": "a", "targets": "b"}, "there")
    changed = content({"inputs": "a", "targets": "c"}, "here")
    assert first.folder == moved.folder != changed.folder
    assert first.content != changed.content


def test_a_damaged_folder_is_written_again(make_task, tmp_path, caplog):
    first = tokenized_records(make_task(TEXTS), "train", str(tmp_path))
    np.save(first.folder / "lengths.npy", np.zeros([1, 2], np.int64))
    again = tokenized_records(make_task(TEXTS), "train", str(tmp_path))
    np.testing.assert_array_equal(again.lengths, [[2, 3], [3, 2]])
    assert "damaged" in caplog.text


def test_errors_name_the_split(make_task, tmp_path):
    with pytest.raises(UserError, match="task letters has no split 'dev'; it has none, train, validation"):
        tokenized_records(make_task(TEXTS), "dev", str(tmp_path))
    with pytest.raises(UserError, match="split 'none' of task letters is empty"):
        tokenized_records(make_task(TEXTS), "none", str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_task_that_forgets_to_tokenize(make_task, tmp_path):
    with pytest.raises(UserError, match="'inputs' is not a list of tokens"):
        tokenized_records(make_task(TEXTS, preprocessors=[]), "train", str(tmp_path))


def test_a_cache_folder_that_cannot_be_written(make_task, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write tokenised examples under .*set LMIRL_CACHE_DIR"):
        tokenized_records(make_task(TEXTS), "train", str(tmp_path / "file"))


def test_missing_tfds_data(make_task, tmp_path):
    task = make_task(TEXTS, source=seqio.TfdsDataSource("gsm8k:1.0.0", tfds_data_dir=str(tmp_path)))
    task = task.replace(source=seqio.TfdsDataSource("gsm8k:1.0.0", str(tmp_path), splits=["train"]))
    with pytest.raises(
        UserError, match=rf"no TFDS data set gsm8k:1\.0\.0 in {tmp_path}; set --tfds_data_dir"
    ):
        tokenized_records(task, "train", str(tmp_path / "cache"))


TWO = """
    import sys, time
    from lmirl_jax import data
    task = data.get_task(data=sys.argv[1]).tasks[0]
    print("ready", flush=True)
    sys.stdin.readline()
    found = data.tokenized_records(task, "train", sys.argv[2])
    print(len(found), found.content)
"""


@pytest.mark.e2e
def test_two_processes_at_once(write_jsonl, tmp_path, repository):
    path = write_jsonl([{"inputs": str(i), "targets": str(i * i)} for i in range(300)])
    command = [sys.executable, "-c", textwrap.dedent(TWO), path, str(tmp_path / "cache")]
    pipe = subprocess.PIPE
    both = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=repository, env=os.environ)
        for _ in "ab"
    ]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert outputs[0] == outputs[1] and outputs[0].startswith("300 ")
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_libraries_are_known_by_their_versions_wherever_they_are_installed():
    """A virtual environment may see another one, and Debian's Python has dist-packages: neither is the task's own code."""
    assert fingerprints._is_installed("/usr/lib/python3/dist-packages/seqio/dataset_providers.py")
    assert fingerprints._is_installed("/other env/lib/python3.11/site-packages/seqio/__init__.py")
    assert fingerprints._is_installed(hashlib.__file__)
    assert not fingerprints._is_installed(__file__)
