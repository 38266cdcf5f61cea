"""Published weights compute in every backend what their own graph computes, at every layer and every size."""

import numpy as np
import pytest
from real import comparing, dinov2
from real.comparing import RUNGS

import conversion
from vit_core.positions import resize_table
from vit_core.tensors import from_numpy, to_numpy

pytestmark = pytest.mark.real

# Of sizes that the graph does not take: one patch row less, as many patches in another shape, the native size.
SIZES = [(210, 224), (112, 448), (518, 518)]


def test_the_tensors_are_the_graph_s_with_layer_scale_folded(published):
    _, got, _ = conversion.load(published, cls="ViTModel", add_pooling_layer=False)
    found, kept = dinov2.stored(), {}
    for name, tensor in got.items():
        theirs = name.replace("layernorm_before", "norm1").replace("layernorm_after", "norm2")
        theirs = theirs.replace("intermediate.dense", "mlp.fc1")
        if ".output.dense" in theirs:
            branch, tail = (
                (1, theirs) if ".attention.output" in theirs else (2, theirs.replace("output.dense", "mlp.fc2"))
            )
            scale = found[f"{'.'.join(name.split('.')[:3])}.layer_scale{branch}.lambda1"]
            kept[name] = found[tail] * (scale[:, None] if tensor.ndim == 2 else scale)
        elif name != "embeddings.position_embeddings":
            kept[name] = found[theirs]
    kept["embeddings.position_embeddings"] = dinov2.positions()
    assert kept.keys() == got.keys() and len(kept) == 5 + 16 * dinov2.LAYERS + 1
    for name, tensor in kept.items():
        np.testing.assert_array_equal(got[name], tensor, err_msg=name)


def test_every_layer_is_the_graph_s(backend, folder, images, expected):
    got = comparing.states(comparing.load(folder, backend), backend, images)
    comparing.check(got, expected)
    found = comparing.errors(got, expected)
    assert all(found[name] <= rung for name, rung in RUNGS["float32"].items()), found


def test_layer_scale_kept_computes_the_same(backend, published, images, expected):
    model = comparing.load(published, backend, layerscale_value=1.0)
    scales = [name for name in model.canonical_tensors() if name.endswith("lambda1")]
    assert len(scales) == 2 * dinov2.LAYERS and model.config.layerscale_value == 1.0
    comparing.check(comparing.states(model, backend, images), expected)


@pytest.mark.parametrize("options", [{}, {"layerscale_value": 1.0}], ids=["folded", "kept"])
def test_names_of_transformers_compute_the_same(backend, options, images, expected, tmp_path):
    model = comparing.load(dinov2.write_folder(tmp_path / "dinov2"), backend, **options)
    comparing.check(comparing.states(model, backend, images[:2]), [state[:2] for state in expected])


def test_features_from_inside_are_the_graph_s(backend, folder, images, expected):
    """Blocks count from 0 there and embeddings are no block: block i gives state i + 1."""
    model, two = comparing.load(folder, backend), images[:2]
    blocks, pixels = [2, 5, 11], from_numpy(two, comparing.TENSORS[backend])
    maps = model.forward_intermediates(pixels, blocks, intermediates_only=True)
    for block, found in zip(blocks, maps, strict=True):
        state = expected[block + 1][:2, 1:]
        comparing.check([to_numpy(found)], [state.swapaxes(1, 2).reshape(2, dinov2.HIDDEN, 16, 16)])
    ((patches, token),) = model.get_intermediate_layers(pixels, 1, return_class_token=True)
    comparing.check([to_numpy(patches), to_numpy(token)], [expected[-1][:2, 1:], expected[-1][:2, 0]])


@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
def test_every_layer_is_the_oracle_s_at_other_sizes(size, backend, folder, sized):
    images, expected = sized(size)
    comparing.check(comparing.states(comparing.load(folder, backend), backend, images), expected)


def test_the_oracle_is_the_graph(sized):
    images, expected = sized((224, 224))
    comparing.check(expected, dinov2.reference(images), 5e-6)  # 2.8e-6


def test_a_table_resized_on_loading_is_the_one_resized_in_a_call(backend, published, images, expected):
    model = comparing.load(published, backend, image_size=224)
    assert model.config.image_size == 224
    comparing.check(comparing.states(model, backend, images), expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stays_near(backend, dtype, folder, images, expected):
    got = comparing.errors(comparing.states(comparing.load(folder, backend, dtype), backend, images), expected)
    assert all(got[name] <= rung for name, rung in RUNGS[dtype].items()), got


@pytest.mark.parametrize("kernel", ["dino", "timm", "tf", "bigvision"])
def test_no_other_kernel_resizes_the_positions_as_the_graph_does(kernel):
    """The tests above can fail: they see whose bicubic resize it is."""
    table, grids = dinov2.positions(), ((37, 37), (16, 16))
    ours, theirs = (resize_table(table, *grids, name) for name in ("hf", kernel))
    assert np.abs(ours - theirs).max() > 1e-3 * np.abs(ours).max()
