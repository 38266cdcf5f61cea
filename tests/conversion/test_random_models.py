"""Any model that can be, through any dialects that can say it: the same bits."""

import tempfile
from pathlib import Path

import pytest
from checkpoints import FIELDS, make_config, make_tensors, write
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import conversion
from conversion.dialects import targets
from vit_core.errors import CheckpointError

TARGETS = targets()


@st.composite
def models(draw):
    cls = draw(st.sampled_from([*FIELDS]))
    heads, patch = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    fields = {
        "num_attention_heads": heads,
        "hidden_size": heads * 4 * draw(st.integers(1, 3)),
        "num_hidden_layers": draw(st.integers(1, 12)),
        "intermediate_size": draw(st.integers(1, 40)),
        "patch_size": patch,
        "image_size": patch * draw(st.integers(2, 5)),
        "num_channels": draw(st.integers(1, 4)),
        "qkv_bias": draw(st.booleans()),
        "hidden_act": draw(st.sampled_from(["gelu", "gelu_pytorch_tanh", "relu", "quick_gelu"])),
        "layer_norm_eps": draw(st.sampled_from([1e-12, 1e-6, 1e-3])),
    }
    fields |= {"encoder_stride": patch} if cls == "ViTForMaskedImageModeling" else {}
    return cls, make_config(cls, **fields)


CHAINS = st.lists(st.sampled_from([*TARGETS]), min_size=1, max_size=3)


@settings(max_examples=15, deadline=None)
@given(models(), CHAINS)
def test_the_same_bits_or_a_refusal(model, dialects):
    check(model, dialects)


@pytest.mark.reliability
@pytest.mark.timeout(1200)
@settings(max_examples=600, deadline=None)
@given(models(), CHAINS)
def test_the_same_bits_or_a_refusal_of_many(model, dialects):
    check(model, dialects)


def check(model, dialects):
    cls, config = model
    options = {"cls": cls} | ({"add_pooling_layer": False} if cls == "ViTModel" else {})
    tensors = make_tensors(cls, config, **{name: value for name, value in options.items() if name != "cls"})
    told = {"num_attention_heads": config.num_attention_heads, "image_size": config.image_size}
    if cls == "ViTMAEForPreTraining":
        told |= {name: getattr(config, name) for name in ("decoder_num_attention_heads", "norm_pix_loss")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "start", config, tensors)
        at = folder / "start"
        for i, to in enumerate(dialects):
            following = folder / f"{i}{TARGETS[to].suffix if TARGETS[to].file is None else ''}"
            try:
                conversion.convert(at, following, to=to, allow=("numerics",), **options, **told)
            except CheckpointError as refusal:
                assert f"{cls} as {to!r}" in str(refusal)
                assume(False)
            at = following
        _, found, _ = conversion.load(at, **options, **told)
    assert {name: tensor.tobytes() for name, tensor in found.items()} == {n: t.tobytes() for n, t in tensors.items()}
