"""Every causal language model that transformers can build tiny: equal to its own attention, or refused in one line."""

import inspect
import re
import warnings

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from effkit.errors import UserError
from esa_attention import ESAConfig, apply_esa
from esa_attention.integration.cache_argument import cache_argument

# Everything is selected: 16 tokens, of which all are local.
ALL = ESAConfig(num_initial=2, num_selected=16, num_local=32, chunk_size=8, dense_until=0)
LARGEST = 3_000_000  # parameters; what has more was not made tiny by these names

SIZES = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "embedding_size"), 64),
    **dict.fromkeys(("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size", "ffn_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads"), 4),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("head_dim", "kv_channels", "rotary_dim"), 16),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "first_k_dense_replace", "bos_token_id"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 128),
    **dict.fromkeys(("sliding_window", "q_lora_rank"), None),
    **dict.fromkeys(("attention_dropout", "attn_dropout", "hidden_dropout"), 0.0),
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "n_inner": 32,
    "vocab_size": 60,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "layer_types": None,
}


def _config(family):
    kind = CONFIG_MAPPING[family]
    names = set(inspect.signature(kind.__init__).parameters)
    names |= {name for base in kind.__mro__ for name in getattr(base, "__annotations__", {})}
    given = {name: value for name, value in SIZES.items() if name in names}
    for _ in range(6):
        try:
            return kind(**given)
        except Exception as error:
            # A field that has no such value here keeps its default.
            named = re.search(r"[Ff]ield '(\w+)'", str(error))
            if named and named[1] in given:
                del given[named[1]]
            elif given.get("layer_types", ...) is None:
                given["layer_types"] = ["full_attention"] * 2
            else:
                raise
    raise ValueError(family)


def _build(family):
    """The model, or ``None`` if it cannot be built tiny and run by these names."""
    try:
        config = _config(family)
        with torch.device("meta"):
            if sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters()) > LARGEST:
                return None
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval().float()
    except Exception:
        return None
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(6)
    return model


def _logits(model):
    """A padded batch: 12 tokens read, one decoded, three more."""
    ids = torch.randint(3, 60, (2, 16), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    out, found = None, []
    for low, high in ((0, 12), (12, 13), (13, 16)):
        given = {"attention_mask": mask[:, :high], "use_cache": True}
        if out is not None:
            cache = out.get("cache") if out.get("cache") is not None else out.past_key_values
            given[cache_argument(model)] = cache
        out = model(ids[:, low:high], **given)
        found.append(out.logits)
    logits = torch.cat(found, dim=1)
    logits[1, :3] = 0
    return logits


def _verdict(family):
    """``equal``, ``refused: why``, ``other``, or ``not tiny``; the last is no verdict on ESA."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the models themselves
        model = _build(family)
        if model is None:
            return "not tiny"
        try:
            handle = apply_esa(model, ALL)
        except UserError as error:
            return f"refused: {error}" if "\n" not in str(error) else f"other: several lines: {error}"
        handle.remove()
        try:
            stock = _logits(model)
        except Exception:
            return "not tiny"
        with apply_esa(model, ALL):
            difference = float((_logits(model) - stock).abs().max())
        assert torch.equal(_logits(model), stock)
        return "equal" if difference <= 1e-4 * float(stock.abs().max()) else f"other: {difference}"


EQUAL = [
    "llama",
    "gemma",
    "granite",
    "mixtral",
    "nemotron",
    "olmo2",
    "phi",
    "phi3",
    "qwen2_moe",
    "smollm3",
    "ministral3",
]
REFUSED = {
    "diffllama": "other keys or values than those it caches",
    "jetmoe": "other keys or values than those it caches",
    "glm": "of a kind ESA does not know",
    "cohere": "of a kind ESA does not know",
    "doge": "not plainly causal",
    "gpt_oss": "sliding_attention",
    "deepseek_v3": "latent",
    "gpt2": "no rotary embedding",
    "jamba": "no rotary embedding",
}


@pytest.mark.parametrize("family", EQUAL)
def test_a_family_is_equal_to_its_own_attention(family):
    assert _verdict(family) == "equal"


@pytest.mark.parametrize("family", REFUSED)
def test_a_family_is_refused_by_name(family):
    verdict = _verdict(family)
    assert verdict.startswith("refused: model="), verdict
    assert REFUSED[family] in verdict


@pytest.mark.parametrize("family", ["glm", "cohere", "helium", "ernie4_5"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_hides_no_wrong_rotation(family, dtype):
    model = _build(family).to(dtype)
    with pytest.raises(UserError, match="of a kind ESA does not know"):
        apply_esa(model, ALL)


@pytest.mark.slow
def test_every_causal_language_model():
    verdicts = {family: _verdict(family) for family in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES}
    wrong = {family: verdict for family, verdict in verdicts.items() if verdict.startswith("other")}
    assert not wrong
    assert sum(verdict == "equal" for verdict in verdicts.values()) >= 40
    assert sum(verdict.startswith("refused") for verdict in verdicts.values()) >= 60
