"""Speed of the PyTorch backend on this machine; read the ratios within a group, not the times.

`make bench` runs these. The floor is what the same matrix products alone take.
"""

import pytest
import torch

import vit_torch
from vit_core.parameters import draw

pytestmark = pytest.mark.bench

BATCH = 4


def matrix_products(config: vit_torch.ViTConfig, batch: int):
    """A function that does the matrix products of one forward pass of ViT and nothing else."""
    tokens, hidden, mlp, layers = 197, config.hidden_size, config.intermediate_size, config.num_hidden_layers
    heads, head_dim = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    x, y = torch.randn(batch * tokens, hidden), torch.randn(batch * tokens, mlp)
    square, up, down = torch.randn(hidden, hidden), torch.randn(hidden, mlp), torch.randn(mlp, hidden)
    query, scores = torch.randn(batch, heads, tokens, head_dim), torch.randn(batch, heads, tokens, tokens)

    def run() -> None:
        for _ in range(layers):
            for _ in range(4):
                x @ square
            query @ query.transpose(2, 3)
            scores @ query
            x @ up
            y @ down

    return run


@pytest.mark.benchmark(group="forward ViT-B/16, batch 4, float32")
@pytest.mark.parametrize("what", ["floor", "sdpa", "eager"])
def test_forward(benchmark, what):
    config = vit_torch.ViTConfig.preset("vit-base-patch16-224")
    if what == "floor":
        run = matrix_products(config, BATCH)
    else:
        config.attn_implementation = what
        model, images = vit_torch.ViTForImageClassification(config).eval(), torch.randn(BATCH, 3, 224, 224)

        def run() -> None:
            model(images)

    with torch.inference_mode():
        benchmark.pedantic(run, rounds=5, warmup_rounds=1)


@pytest.mark.benchmark(group="training step ViTMAE-B, batch 4, float32")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_mae_step(benchmark, checkpointing):
    model = vit_torch.ViTMAEForPreTraining(vit_torch.ViTMAEConfig.preset("vit-mae-base"))
    if checkpointing:
        model.gradient_checkpointing_enable()
    images = torch.randn(BATCH, 3, 224, 224)

    def run() -> None:
        model.zero_grad()
        model(images).loss.backward()

    benchmark.pedantic(run, rounds=3, warmup_rounds=1)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    config = vit_torch.ViTConfig.preset("vit-large-patch16-224")
    tensors = draw(config, "ViTForImageClassification", seed=0)
    vit_torch.ViTForImageClassification.from_tensors(config, tensors).save_pretrained(folder)
    return folder


@pytest.mark.benchmark(group="loading ViT-L/16, 304 M parameters")
@pytest.mark.parametrize("what", ["read the bytes", "verified", "unverified", "random initialisation"])
def test_load(benchmark, large, what):
    runs = {
        "read the bytes": lambda: (large / "model.safetensors").read_bytes(),
        "verified": lambda: vit_torch.ViTForImageClassification.from_pretrained(large),
        "unverified": lambda: vit_torch.ViTForImageClassification.from_pretrained(
            large, verify=False, allow_nonfinite=True
        ),
        "random initialisation": lambda: vit_torch.ViTForImageClassification(
            vit_torch.ViTConfig.preset("vit-large-patch16-224")
        ),
    }
    benchmark.pedantic(runs[what], rounds=3, warmup_rounds=1)
