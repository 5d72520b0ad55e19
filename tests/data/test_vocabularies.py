import pytest

from lmirl_jax import data
from lmirl_jax.types import UserError


def test_bytes_without_a_path():
    vocabulary = data.vocabulary(None)
    assert vocabulary.encode("a b") == [100, 35, 101]
    assert (vocabulary.eos_id, vocabulary.vocab_size) == (1, 259)


def test_sizes_are_those_of_byt5_and_t5(shared_data):
    t5 = data.vocabulary(str(shared_data / "t5_vocab" / "spiece.model"))
    assert data.padded_vocab_size(data.vocabulary()) == 384
    assert (t5.vocab_size, data.padded_vocab_size(t5)) == (32100, 32128)
    assert data.padded_vocab_size(data.vocabulary(), t5) == 32128


def test_fingerprint_is_of_the_content(shared_data, tmp_path):
    original = shared_data / "t5_vocab" / "spiece.model"
    copy = tmp_path / "copy.model"
    copy.write_bytes(original.read_bytes())
    first, second = (data.vocabulary_fingerprint(data.vocabulary(str(path))) for path in (original, copy))
    assert first == second != data.vocabulary_fingerprint(data.vocabulary())


def test_missing_file():
    with pytest.raises(UserError, match=r"no vocabulary at /no/such\.model: VOCABULARY_PATH"):
        data.vocabulary("/no/such.model")


@pytest.mark.parametrize("content", [b"", b"hello, I am text\n", bytes(range(256))])
def test_a_file_that_is_no_model(tmp_path, content):
    file = tmp_path / "words.model"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"words\.model is no SentencePiece model"):
        data.vocabulary(str(file))
