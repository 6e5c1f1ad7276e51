"""Any causal language model of Hugging Face, from its family and sizes; random weights, nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from pipezoo.errors import ArgumentError, ConfigError
from pipezoo.foreign_import import declare_operators
from pipezoo.models._extra import extra
from pipezoo.validators import check_int


def hf_causal_lm(
    family: str = "llama",
    vocab_size: int = 256,
    width: int = 64,
    depth: int = 4,
    heads: int = 4,
    context: int = 64,
    tied: bool = False,
    config: Mapping[str, Any] | None = None,
) -> nn.Module:
    """``AutoModelForCausalLM`` of a configuration with these sizes.

    Its forward takes ``input_ids`` ``[rows, context]`` and returns a ``ModelOutput``, of which ``logits`` are
    ``[rows, context, vocab_size]``.

    Args:
        family: ``model_type`` of transformers: ``llama``, ``gpt2``, ``qwen3``, ``mistral`` ...
        vocab_size: different tokens.
        width: features of a position, a multiple of ``heads``.
        depth: layers.
        heads: attention heads; keys and values have as many, unless ``config`` says otherwise.
        context: positions at most.
        tied: whether the head's weight is the token embedding.
        config: further keys of the family's configuration, by their own names.

    Raises:
        ArgumentError: an unknown family, or sizes that it does not take.
        ConfigError: transformers is not installed.
    """
    for name, value in (("vocab_size", vocab_size), ("width", width), ("depth", depth), ("context", context)):
        check_int(name, value, 1)
    check_int("heads", heads, 1)
    if width % heads:
        raise ArgumentError("width", width, f"must be a multiple of heads={heads}")
    extra("transformers", "hf", "hf_causal_lm")
    transformers = _loaded()
    known = transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if family not in known:
        raise ArgumentError(
            "family", family, "transformers has no causal language model of this family", _like(family, known)
        )
    sizes = {
        "vocab_size": vocab_size,
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "max_position_embeddings": context,
        "tie_word_embeddings": tied,
        "use_cache": False,
    }
    plain = transformers.AutoConfig.for_model(family)
    derived = {"intermediate_size": 4 * width, "num_key_value_heads": heads, "head_dim": width // heads}
    sizes |= {name: value for name, value in derived.items() if hasattr(plain, name)}
    tokens = {name: None for name in ("bos_token_id", "eos_token_id", "pad_token_id") if hasattr(plain, name)}
    made = transformers.AutoConfig.for_model(family, **{**sizes, **tokens, **dict(config or {})})
    model: nn.Module = transformers.AutoModelForCausalLM.from_config(made)
    return model


def _loaded() -> Any:
    """transformers with what it imports when it is asked for. Raises ConfigError where that fails."""
    import transformers

    try:
        transformers.AutoModelForCausalLM  # noqa: B018 - asked for the import alone
    except Exception as error:
        if declare_operators():
            return _loaded()
        text = " ".join(str(error).split())[:200]
        raise ConfigError(f"model=hf_causal_lm: importing transformers failed: {text}") from error
    return transformers


def _like(family: str, known: Mapping[str, Any]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(family, known) or ["llama", "gpt2", "qwen3", "mistral", "mixtral"]
    return ", ".join([*near, "..."])
