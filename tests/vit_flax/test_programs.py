"""Programs of jax.export whose sizes are symbols: right at every size, or refused by name."""

import jax
import numpy as np
import pytest
from flax_models import make_model
from jax import export
from programs import FIELDS, REAL, REAL_SIZES, SIZES, check_every_size

from vit_core.errors import InputError
from vit_core.positions import resize_matrix
from vit_flax.layers import traced_matrix

AXES = [(4, 4), (14, 24), (24, 14), (3, 7), (1, 5), (5, 1), (37, 16), (37, 32), (196, 1369), (1369, 196)]

# XLA compiles for each
FEW = ("native", "as many patches, turned", "as many patches, wide", "no multiple", "large")


def exported(model, name, **options):
    """The model as a function of images of any size, written and read back."""
    down, across = np.broadcast_to(model.config.patch_size, 2).tolist()
    at_least_one_patch = (f"height >= {down}", f"width >= {across}")
    batch, height, width = export.symbolic_shape("batch, height, width", constraints=at_least_one_patch)
    specs = {"pixel_values": jax.ShapeDtypeStruct((batch, 3, height, width), np.float32)}
    if "MAE" in name:
        specs["noise"] = jax.ShapeDtypeStruct((batch, (height // down) * (width // across)), np.float32)
    run = jax.jit(lambda params, inputs: model(**inputs, params=params, **options))
    written = export.export(run)(model.params, specs)
    read = export.deserialize(bytearray(written.serialize()))
    return lambda inputs: {key: np.asarray(value) for key, value in read.call(model.params, inputs).items()}


def check(model, name, sizes):
    run = exported(model, name, interpolate_pos_encoding=True)
    check_every_size(name.removeprefix("Flax"), model.config, model.canonical_tensors(), run, sizes)


@pytest.mark.every_day("3-7", "5-1", "37-16")
@pytest.mark.parametrize(("old", "new"), AXES)
def test_the_matrix_in_array_operations_is_that_of_numpy(old, new):
    found = traced_matrix(old, new, np.float32)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, resize_matrix(old, new), rtol=0, atol=1e-6)
    if old == new:
        np.testing.assert_array_equal(found, np.eye(old))


@pytest.mark.every_day("FlaxViTModel", "FlaxViTMAEForPreTraining")
def test_one_export_is_right_at_every_size(name):
    check(make_model(name, **FIELDS), name, {what: SIZES[what] for what in FEW})


def test_one_export_with_the_table_of_dinov2():
    check(make_model("FlaxViTModel", **REAL), "FlaxViTModel", REAL_SIZES)


def test_symbols_without_interpolation_are_refused_by_name(name):
    with pytest.raises(InputError, match=r"height and width are not known .*\n.*interpolate_pos_encoding=True"):
        exported(make_model(name, **FIELDS), name)


def test_a_ratio_that_rounding_decides_is_refused_while_tracing():
    model = make_model("FlaxViTMAEModel", **FIELDS, mask_ratio=0.3)
    with pytest.raises(InputError, match=r"mask_ratio: 0\.3 .* not known while tracing"):
        exported(model, "FlaxViTMAEModel", interpolate_pos_encoding=True)
