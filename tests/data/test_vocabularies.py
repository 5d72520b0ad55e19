"""Our vocabularies give what SeqIO's give, which are the oracle; its own, of any ids, are read as they are."""

import copy
import hashlib

import pytest
import seqio
from sentencepiece import sentencepiece_model_pb2

from lmirl_jax import data
from lmirl_jax.data.seqio_vocabularies import from_seqio
from lmirl_jax.data.vocabularies import Vocabulary, as_vocabulary
from lmirl_jax.types import UserError


def test_bytes_without_a_path():
    vocabulary = data.vocabulary(None)
    assert vocabulary.encode("a b") == [100, 35, 101]
    assert (vocabulary.eos_ids, vocabulary.vocab_size) == ((1,), 259)


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


TEXTS = [
    *(
        "",
        " ",
        "a",
        "1+2! is 3!",
        "  two  spaces ",
        "a\nb\tc",
        "é漢字 ⁇ </s> <pad>",
        "<extra_id_0> x <extra_id_99>",
    ),
    *("\u00a0\u2581x", "ﬁ ½ Å", "\x00\x7f", "🙂👩‍👩‍👧", "<unk>", "▁▁"),
]


def written_model(path):
    """A SentencePiece model of thirteen pieces, written by hand: the same bytes with any version of the library."""
    model = sentencepiece_model_pb2.ModelProto()
    kinds = sentencepiece_model_pb2.ModelProto.SentencePiece
    for piece, kind in (("<pad>", kinds.CONTROL), ("</s>", kinds.CONTROL), ("<unk>", kinds.UNKNOWN)):
        model.pieces.add(piece=piece, score=0.0, type=kind)
    for number, piece in enumerate(["▁", "a", "b", "c", "▁a", "▁ab", "+", "1", "2", "3"]):
        model.pieces.add(piece=piece, score=-1.0 - number / 8, type=kinds.NORMAL)
    model.trainer_spec.model_type = 1
    model.trainer_spec.pad_id, model.trainer_spec.eos_id = 0, 1
    model.trainer_spec.unk_id, model.trainer_spec.bos_id = 2, -1
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


@pytest.fixture(scope="module", params=["bytes", "words_model", "spiece_eos_2", "spiece_word_0"])
def both(request):
    """A vocabulary of ours, and SeqIO's of the same."""
    if request.param == "bytes":
        return data.vocabulary(), seqio.ByteVocabulary()
    path = str(request.getfixturevalue(request.param))
    return data.vocabulary(path), seqio.SentencePieceVocabulary(path, extra_ids=100)


@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_encoded_as_by_seqio(both, text):
    ours, theirs = both
    ids = list(theirs.encode(text))
    assert ours.encode(text) == ids == theirs.encode_tf(text).numpy().tolist()
    assert ours.decode(ids) == theirs.decode(ids)


def test_ids_are_decoded_as_by_seqio(both):
    ours, theirs = both
    size, eos, unknown = theirs.vocab_size, theirs.eos_id, theirs.unk_id
    word, other = theirs.encode("1+")[-2:]
    for ids in (
        *([], [0], [0, 0], [eos], [unknown], [size - 1], [size], [size + 1000], [3], [3, 258, 259]),
        *([word, eos, other], [word, other, 0, 0], [0, word, 0, other], [word, unknown, size, eos, word]),
        *([word, size - 1, other, eos, eos], list(range(min(size, 400)))),
    ):
        assert ours.decode(ids) == theirs.decode(ids), ids


def test_special_ids_and_fingerprints_are_those_of_seqio(both):
    ours, theirs = both
    assert isinstance(ours, Vocabulary) and not isinstance(theirs, Vocabulary)
    assert (ours.eos_ids, ours.unk_id) == ((theirs.eos_id,), theirs.unk_id)
    assert ours.vocab_size == theirs.vocab_size
    assert ours.fingerprint() == data.vocabulary_fingerprint(theirs) == copy.deepcopy(ours).fingerprint()
    extra = 0 if isinstance(theirs, seqio.ByteVocabulary) else 100
    model = b"" if extra == 0 else theirs.sp_model
    described = f"{type(theirs).__name__} {extra}".encode() + model
    assert ours.fingerprint() == hashlib.sha256(described).hexdigest()


def test_fingerprints_are_those_that_checkpoints_have_recorded(tmp_path):
    words = data.vocabulary(str(written_model(tmp_path / "words.model")))
    assert data.vocabulary().fingerprint() == (
        "83ed05cd765480508759fa688defa98d8962a19b267778b26d5d3c067ac84aca"
    )
    assert words.fingerprint() == "6a6157701d21cf6622e66d3612beccfa042d1b6c119b3b14ba5b9b270144e44d"
    wide = seqio.ByteVocabulary(extra_ids=7)
    assert data.vocabulary_fingerprint(wide) == hashlib.sha256(b"ByteVocabulary 7").hexdigest()
    assert as_vocabulary(wide).vocab_size == 266


def test_a_model_without_an_end_is_refused(train_vocabulary):
    path = train_vocabulary(["a b c d"] * 9, pad_id=0, unk_id=1, eos_id=-1, bos_id=-1)
    with pytest.raises(UserError, match="has no end-of-sequence piece"):
        data.vocabulary(str(path))


def test_a_vocabulary_of_the_users_is_asked_itself(gpt2_like):
    vocabulary = from_seqio(gpt2_like)
    assert (vocabulary.eos_ids, vocabulary.unk_id, vocabulary.vocab_size) == ((256,), None, 257)
    assert vocabulary.encode("!a!") == [0, 64, 0] == gpt2_like.encode_tf("!a!").numpy().tolist()
    assert vocabulary.decode([0, 64, 0, 256, 64]) == "!a!"
    described = "Gpt2LikeVocabulary 0[('_extra_ids', 0)]"
    assert vocabulary.fingerprint() == hashlib.sha256(described.encode()).hexdigest()


def test_several_ids_may_end_a_text():
    from tests.gpt2_vocabulary import SeveralEndsVocabulary

    vocabulary = as_vocabulary(SeveralEndsVocabulary())
    assert vocabulary.eos_ids == (256, 93)
    assert vocabulary.decode([0, 64, 93, 64, 256]) == vocabulary.decode([0, 64, 256, 64, 93]) == "!a"


def test_seqio_gets_its_type_of_a_path(words_model):
    made = data.seqio_vocabulary(str(words_model))
    assert isinstance(made, seqio.SentencePieceVocabulary)
    assert data.vocabulary_fingerprint(made) == data.vocabulary(str(words_model)).fingerprint()
    assert isinstance(data.seqio_vocabulary(), seqio.ByteVocabulary)
    with pytest.raises(UserError, match="no vocabulary at nowhere"):
        data.seqio_vocabulary("nowhere")
