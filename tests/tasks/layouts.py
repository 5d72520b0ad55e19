"""Writes small data sets in the layouts from which the tasks are read: of TFDS, of their authors' files, and of sacrebleu."""

import gzip
import json
import pathlib
from collections.abc import Mapping, Sequence

import pytest
import sacrebleu
import tensorflow as tf
import tensorflow_datasets as tfds


def write_tfds(
    folder: pathlib.Path,
    name: str,
    version: str,
    splits: Mapping[str, Sequence[Mapping[str, str]]],
    features: tfds.features.FeatureConnector | None = None,
    config: str | None = None,
) -> None:
    """Writes rows of texts as TFDS lays them out; `features` are texts where they are not given."""
    keys = list(next(iter(splits.values()))[0])
    datasets = {
        split: tf.data.Dataset.from_tensor_slices({key: [row[key] for row in rows] for key in keys})
        for split, rows in splits.items()
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version=version,
        config=config,
        data_dir=str(folder),
        disable_shuffling=True,
        features=features or tfds.features.FeaturesDict({key: tfds.features.Text() for key in keys}),
        split_datasets=datasets,
    )


def write_gsm8k(folder: pathlib.Path) -> None:
    rows = [
        {
            "question": f"What is {n} + {n}?",
            "answer": f"It is {n}+{n}=<<{n}+{n}={2 * n}>>{2 * n}.\n#### {2 * n}",
            "annotation": "x",
            "short_answer": str(2 * n),
        }
        for n in range(1, 6)
    ]
    write_tfds(folder, "gsm8k", "1.0.0", {"train": rows[:3], "test": rows[3:]})


def write_xsum(folder: pathlib.Path) -> None:
    rows = {
        split: [
            {"document": f"News of {split} {i}.\nMore.", "summary": f" {split} {i} \n"} for i in range(count)
        ]
        for split, count in (("train", 12), ("validation", 2), ("test", 3))
    }
    write_tfds(folder, "xsum", "1.1.0", rows)


def write_reddit(folder: pathlib.Path) -> None:
    """Enough posts for the two held-out splits, and seven for training, of which two cannot be used."""
    keys = ("author", "body", "normalizedBody", "subreddit", "subreddit_id", "id")
    rows = [
        dict.fromkeys(keys, "x") | {"content": f"Post {i}", "summary": f"sum\n\n{i}"} for i in range(4007)
    ]
    rows[4001]["summary"] = " \n"
    rows[4003]["content"] = ""
    write_tfds(folder, "reddit", "1.0.0", {"train": rows})


def write_wmt(folder: pathlib.Path) -> None:
    rows = {
        "train": [{"de": "Guten Tag.", "en": "Good day."}, {"de": "Ja.", "en": "Yes."}],
        "validation": [{"de": "Nein.", "en": "No."}],
    }
    features = tfds.features.Translation(languages=("de", "en"))
    write_tfds(folder, "wmt19_translate", "1.0.0", rows, features, config="de-en")


def write_sacrebleu(folder: pathlib.Path) -> None:
    """WMT22's test set as sacrebleu unpacks and reads it: two segments with references of two translators."""
    sides = {
        'src lang="en"': ("The cat sat.", "It rains &amp; pours."),
        'ref lang="de" translator="B"': ("Da saß die Katze.", "Es regnet in Strömen."),
        'ref lang="de" translator="A"': ("Die Katze saß.", "Es regnet sehr."),
    }
    parts = [
        f'<{tag}><p><seg id="1">{one}</seg><seg id="2">{two}</seg></p></{tag.split()[0]}>'
        for tag, (one, two) in sides.items()
    ]
    document = f'<dataset><collection><doc origlang="en" id="d">{"".join(parts)}</doc></collection></dataset>'
    test_set = sacrebleu.DATASETS["wmt22"]
    raw = folder / "wmt22" / "raw"
    xml = raw / test_set.langpairs["en-de"][0]
    xml.parent.mkdir(parents=True)
    xml.write_text(document, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_set, "_outdir", str(folder / "wmt22"))
        patch.setattr(test_set, "_rawdir", str(raw))
        patch.setattr(test_set, "maybe_download", lambda: None)
        test_set.process_to_text("en-de")


def write_scitldr(folder: pathlib.Path) -> None:
    summaries = {
        "train": [["We do it."], ["We do more."], ["We stop."]],
        "dev": [["One.", "Two\nwords.", "Three."], ["Four."]],
        "test": [["Five.", " "]],
    }
    folder = folder / "scitldr"
    folder.mkdir()
    for split, targets in summaries.items():
        lines = [
            {
                "source": ["It is hard.", "We \n do it."],
                "source_labels": [0, 1],
                "paper_id": "x",
                "target": target,
            }
            for target in targets
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_multi30k(folder: pathlib.Path) -> None:
    """The first captions with a line separator of Unicode in them, which does not end a line."""
    texts = {
        "train.en": "A\u2028dog.\nA cat.\nA cow.\n",
        "train.de": "Ein\u2028Hund.\nEine Katze.\nEine Kuh.\n",
        "val.en": "Two dogs.\r\n",
        "val.de": "Zwei Hunde.\n",
        "test_2016_flickr.en": "A man.",
        "test_2016_flickr.de": "Ein Mann.",
        "test_2016.1.en": "A person.\n",
        **{f"test_2016.{i}.de": f"Person {i}.\n" for i in range(1, 6)},
    }
    folder = folder / "multi30k_en_de"
    folder.mkdir()
    for name, text in texts.items():
        if name.startswith("val"):
            (folder / name).write_bytes(text.encode())
        else:
            (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
