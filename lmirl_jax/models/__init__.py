"""Networks: hidden states in training, a cache in decoding. They know logical axes, never objectives."""

from lmirl_jax.models.abstract import parameter_count
from lmirl_jax.models.adapters import LoRAConfig, merge_adapters
from lmirl_jax.models.critic import Critic, CriticConfig, critic_params, gradient_penalty, offset_gradients
from lmirl_jax.models.decoder_only import DecoderOnly
from lmirl_jax.models.decoder_only_config import DecoderOnlyConfig
from lmirl_jax.models.encoder_decoder import EncoderDecoder
from lmirl_jax.models.heads import HeadsConfig, guidance, reward_heads, reward_values
from lmirl_jax.models.rotary import LinearRopeScaling, Llama3RopeScaling
from lmirl_jax.models.t5 import T5Config
from lmirl_jax.models.t5gemma import T5GemmaConfig, T5GemmaStackConfig

__all__ = [
    "Critic",
    "CriticConfig",
    "DecoderOnly",
    "DecoderOnlyConfig",
    "EncoderDecoder",
    "HeadsConfig",
    "LinearRopeScaling",
    "Llama3RopeScaling",
    "LoRAConfig",
    "T5Config",
    "T5GemmaConfig",
    "T5GemmaStackConfig",
    "critic_params",
    "gradient_penalty",
    "guidance",
    "merge_adapters",
    "offset_gradients",
    "parameter_count",
    "reward_heads",
    "reward_values",
]
