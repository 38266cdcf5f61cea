"""Every backend loads what every library wrote, and computes what that library computed."""

import numpy as np
import pytest
from backends import INSTALLED, adapters
from foreign import CASES, case_name, inputs, keywords, outputs, source


def array(output):
    return np.asarray(output.detach() if hasattr(output, "detach") else output)


@pytest.mark.every_day(
    "torch]",
    "bigvision_tok-",
    "deit3_layerscale-",
    "dino_backbone",
    "dinov2_small",
    "flax_vit_cls-",
    "google_vit_linen",
    "hf4_vit_cls-",
    "hf4_vitmae_pretraining-",
    "hf5_vit_model",
    "keras_hub_backbone_deep",
    "mae_encoder_only",
    "tf_vit_model-",
    "timm_vit_pth",
    "torchvision_vit-",
)
@pytest.mark.parametrize("backend", adapters(), ids=INSTALLED)
@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_outputs_are_those_of_the_library(case, backend):
    entry, choice = case
    options = {"add_pooling_layer": "pooler_output" in entry["outputs"]} if entry["target"] == "ViTModel" else {}
    model, info = backend.cls(entry["target"]).from_pretrained(
        source(entry), output_loading_info=True, **options, **keywords(entry, choice)
    )
    assert not info["missing_keys"] and not info["mismatched_keys"]
    found, expected = backend.as_tested(model)(**inputs(entry)), outputs(entry, choice)
    shared = {*found.keys()} & {*expected}
    assert shared
    for name in shared:
        scale = max(1, np.abs(expected[name]).max())
        atol = entry["tolerance"] * scale
        np.testing.assert_allclose(array(found[name]), expected[name], rtol=0, atol=atol, err_msg=name)
