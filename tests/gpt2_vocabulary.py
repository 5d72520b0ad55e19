"""The bytes of GPT-2's vocabulary, as a user would register one with SeqIO."""

import seqio
import tensorflow as tf

# GPT-2 begins with the printable bytes, `!` first, and ends with those that are not.
PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
BYTES = PRINTABLE + [byte for byte in range(256) if byte not in PRINTABLE]
END_OF_TEXT = 256


class Gpt2LikeVocabulary(seqio.Vocabulary):
    """Ids 0 to 255 are bytes, 256 is <|endoftext|>, which serves as padding too. Nothing is unknown."""

    @property
    def eos_id(self):
        return END_OF_TEXT

    @property
    def pad_id(self):
        return END_OF_TEXT

    @property
    def unk_id(self):
        return None

    @property
    def _base_vocab_size(self):
        return END_OF_TEXT + 1

    def _encode(self, s):
        return [BYTES.index(byte) for byte in s.encode("utf-8")]

    def _decode(self, ids):
        return bytes(BYTES[i] for i in ids if i < 256).decode("utf-8", errors="ignore")

    def _encode_tf(self, s):
        ids = tf.constant([BYTES.index(byte) for byte in range(256)], tf.int32)
        return tf.gather(ids, tf.cast(tf.io.decode_raw(s, tf.uint8), tf.int32))

    def _decode_tf(self, ids):
        raise NotImplementedError


class SeveralEndsVocabulary(Gpt2LikeVocabulary):
    """Like Llama 3's it has a second id that ends an answer: that of `~`."""

    eos_ids = (END_OF_TEXT, BYTES.index(ord("~")))
