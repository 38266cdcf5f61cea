"""Random configurations, as from a file: each ends as a model that runs, or as a ConfigError that says why."""

import json
import math
from collections import Counter

import numpy as np
import pytest
from backends import INSTALLED

from vit_core import ConfigError, InputError
from vit_core.config import AutoConfig, pair
from vit_core.parameters import parameter_table
from vit_core.tensors import to_numpy
from vitriad.auto import model_class

CLASSES = {
    "vit": ["ViTModel", "ViTForImageClassification", "ViTForMaskedImageModeling"],
    "vit_mae": ["ViTMAEModel", "ViTMAEForPreTraining"],
}
LARGEST = 300_000  # parameters, and numbers in the attention of one image, of a model that is built here
ACTIVATIONS = ["gelu", "gelu_new", "relu", "silu", "tanh", "quick_gelu", "mish", "linear"]
LEGAL = {  # field -> values that a small model can have
    "hidden_size": [12, 24],
    "num_hidden_layers": [0, 1, 2, 3],
    "num_attention_heads": [1, 2, 3, 4],
    "intermediate_size": [1, 5, 16],
    "hidden_act": ACTIVATIONS,
    "hidden_dropout_prob": [0.0, 0.5, 1],
    "attention_probs_dropout_prob": [0.0, 0.1],
    "initializer_range": [0, 0.02, 1.0],
    "layer_norm_eps": [1e-12, 1e-6, 1],
    "image_size": [8, 12, [8, 12], [9, 8]],
    "patch_size": [4, 2, [4, 2], 1, 3],
    "num_channels": [1, 3, 5],
    "qkv_bias": [True, False],
    "num_labels": [0, 1, 2, 7],
    "output_attentions": [True, False],
    "output_hidden_states": [True, False],
    "torch_dtype": [None, "float32", "bfloat16"],
    "attn_implementation": [None, "eager", "sdpa"],
    "pruned_heads": [{}, {}, {"0": [0]}],
}
OWN = {
    "vit": {"encoder_stride": [1, 2, 4], "pooler_output_size": [None, 5], "pooler_act": ACTIVATIONS},
    "vit_mae": {
        "decoder_hidden_size": [4, 6, 8],
        "decoder_num_hidden_layers": [0, 1, 2],
        "decoder_num_attention_heads": [1, 2],
        "decoder_intermediate_size": [3, 8],
        "mask_ratio": [0.0, 0.5, 0.75],
        "norm_pix_loss": [True, False],
    },
}
ABSURD = [None, "", "8", "gelu", "os.system", -1, 0, 1.5, -0.0, 1e-300, 1e300, 2**31, 10**30, True, [], {}, [1, 2, 3]]
ABSURD += [[[8]], {"a": 1}, float("nan"), float("inf"), [4, "4"], [0, 8], {"0": [9]}, 65_536, 1024, 16_384, "float32"]
EXTRA = ["unknown_key", "_private", "hiden_size", "to_dict", "auto_map", "__class__", "id2label", "label2id", "dtype"]


def pick(rng: np.random.Generator, values: list) -> object:
    return values[int(rng.integers(len(values)))]


def draw_config(rng: np.random.Generator) -> dict:
    """A legal small configuration, in which up to three keys are then given any value at all."""
    kind = pick(rng, ["vit", "vit_mae"])
    fields = LEGAL | OWN[kind]
    data = {name: pick(rng, fields[name]) for name in fields if "size" in name or "num" in name or rng.random() < 0.9}
    data["model_type"] = kind
    for _ in range(int(rng.choice(4, p=[0.5, 0.25, 0.15, 0.1]))):
        data[pick(rng, [*fields, *EXTRA])] = pick(rng, ABSURD)
    return json.loads(json.dumps(data))


def is_small(config, cls: str) -> bool:
    """Whether a model can be built and run in no time, by the numbers that its table promises."""
    (height, width), (rows, columns) = pair(config.image_size), pair(config.patch_size)
    tokens = 1 + (height // rows) * (width // columns)
    layers = config.num_hidden_layers + getattr(config, "decoder_num_hidden_layers", 0)
    sizes = [math.prod(row.shape) for row in parameter_table(config, cls).values()]
    work = [sum(sizes), tokens**2 * config.num_attention_heads, height * width * config.num_channels]
    return max(work) <= LARGEST and layers <= 50


def outcome(data: dict, folder, rng: np.random.Generator, backend: str) -> str:
    """What becomes of one configuration; anything but the expected ends is raised."""
    (folder / "config.json").write_text(json.dumps(data))
    try:
        config = AutoConfig.from_pretrained(folder)
    except ConfigError as error:
        assert 1 <= len(str(error).splitlines()) <= 3 and str(folder) in str(error)
        return "refused"
    cls = str(pick(rng, CLASSES[config.model_type]))
    if not is_small(config, cls):
        return "legal, too large to build here"
    model = model_class(cls, backend)(config)
    if backend == "torch":
        model.eval()
    height, width = pair(config.image_size)
    pixels = rng.standard_normal((2, config.num_channels, height, width)).astype(np.float32)
    try:
        output = model(pixel_values=pixels, return_dict=True)
    except InputError as error:  # a mask_ratio that leaves nothing to encode, or nothing to lose, with so few patches
        assert config.model_type == "vit_mae" and "mask_ratio" in str(error)
        return "runs with another mask_ratio"
    main = output[{"ViTForImageClassification": "logits", "ViTForMaskedImageModeling": "reconstruction"}.get(cls, 0)]
    np.testing.assert_equal(np.isfinite(to_numpy(main)).all(), True)
    assert main.shape == () or len(main) == 2
    return "runs"


LONG = [pytest.mark.reliability, pytest.mark.timeout(3000)]
COUNTS = [  # what decides is in the core; with TensorFlow and JAX every shape has to be compiled
    *((name, count) for name, count in (("torch", 1000), ("tf", 6)) if name in INSTALLED),
    *(pytest.param(name, 6, marks=pytest.mark.long) for name in INSTALLED if name == "flax"),
    *(pytest.param(name, 10_000 if name == "torch" else 100, marks=LONG) for name in INSTALLED),
]


@pytest.mark.parametrize(("backend", "count"), COUNTS)
def test_every_configuration_runs_or_is_refused(backend, count, tmp_path, figure, caplog):
    rng, ends = np.random.default_rng(count), Counter()
    caplog.set_level("ERROR", "vitriad")
    for _ in range(count):
        data = draw_config(rng)
        try:
            ends[outcome(data, tmp_path, rng, backend)] += 1
        except Exception as error:
            raise AssertionError(f"{json.dumps(data)}: {error!r}") from error
    figure(f"random configurations, {backend}, {count}", ", ".join(f"{n} {end}" for end, n in sorted(ends.items())))
    assert ends["runs"] >= count // 6 and ends["refused"] >= count // 6
