from lmirl_jax import data
from lmirl_jax.tasks import number_paths, number_paths_large


def numbers(split):
    return {tuple(sorted(map(int, prompt.split("+")))) for prompt, _ in number_paths_large.examples(split)}


def test_splits_are_disjoint_by_the_numbers_themselves():
    splits = [numbers(split) for split in number_paths.SPLITS]
    # 165 triples of 1 to 9, each with one of three larger numbers.
    assert list(map(len, splits)) == [195, 150, 150] and len(set.union(*splits)) == 495
    assert all(sum(number > 9 for number in chosen) == 1 for split in splits for chosen in split)


def test_every_answer_is_right_and_every_prompt_comes_once():
    for split in number_paths.SPLITS:
        pairs = number_paths_large.examples(split)
        assert len({prompt for prompt, _ in pairs}) == len(pairs) >= 150
        assert all(number_paths.check(prompt, answer) == (3, 3, True, True) for prompt, answer in pairs)
    assert len(number_paths_large.examples("train")) > 3000


def test_as_a_seqio_task(tmp_path):
    lengths = {"inputs": 9, "targets": 24}
    task = data.get_task("number_paths_large")
    for split in number_paths.SPLITS:
        held = data.EvalDataset(task, lengths, split, truncate=False, cache_dir=str(tmp_path))
        assert held.metrics([held.decode(example["targets"]) for example in held.examples])["valid"] == 1.0
    assert task.vocab_size == data.get_task("number_paths").vocab_size
