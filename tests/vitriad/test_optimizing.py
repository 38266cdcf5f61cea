"""`optimize=` and `--optimize`: the same classes and features, from layers that compute with packed weights."""

import json

import numpy as np
import pytest
import torch

import vitriad
from vit_core.errors import InputError
from vit_torch.inference import OptimizedLayer
from vitriad import models
from vitriad.cli import main
from vitriad.feature_files import read_features
from vitriad.features import Embedder

DIGITS = list(map(str, models.digit_files()))[:3]
pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch has no oneDNN here")


def optimised(model):
    return [module.dtype for module in model.modules() if isinstance(module, OptimizedLayer)]


def test_a_model_is_loaded_optimised():
    plain = vitriad.load("digits-vit", "torch")
    model, info = vitriad.load("digits-vit", "torch", optimize=True, output_loading_info=True)
    assert type(model) is type(plain) and info["missing_keys"] == []
    assert optimised(model) == [None] * model.config.num_hidden_layers
    assert optimised(vitriad.load("digits-vit", "torch", optimize=False)) == []
    assert {*optimised(vitriad.load("digits-vit", "torch", optimize="float32"))} == {torch.float32}
    pixels = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        np.testing.assert_allclose(model(pixels).logits, plain(pixels).logits, atol=1e-4)


@pytest.mark.parametrize("option", [["--optimize"], ["--optimize-dtype", "float32"]])
def test_classify_says_the_same(capsys, option):
    words = ["classify", "--json", "--backend", "torch"]
    assert main([*words, *DIGITS]) == 0
    plain = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main([*words, *option, *DIGITS]) == 0
    fast = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["label"] for each in fast] == [each["label"] for each in plain]
    np.testing.assert_allclose([each["score"] for each in fast], [each["score"] for each in plain], atol=1e-5)


def test_embed_and_search_take_it(tmp_path, capsys):
    out = str(tmp_path / "features.npz")
    assert main(["embed", *DIGITS, "--backend", "torch", "--optimize", "--out", out]) == 0
    _, columns = read_features(out)
    plain = Embedder("digits-vit", "torch")({"path": np.array(DIGITS)})
    np.testing.assert_allclose(columns["class_token"], plain["class_token"], atol=1e-4)
    assert main(["search", out, DIGITS[1], "--backend", "torch", "--optimize", "--json"]) == 0
    assert DIGITS[1].endswith(json.loads(capsys.readouterr().out.splitlines()[-1])["nearest"][0]["name"][-8:])
    embedder = Embedder("digits-vit", "torch", optimize=True)
    assert embedder.optimize is True and optimised(embedder.model)


def test_an_interrupted_run_goes_on_only_with_the_same(tmp_path, capsys, monkeypatch):
    out = str(tmp_path / "features.npz")
    words = ["embed", *DIGITS, "--backend", "torch", "--out", out]
    with monkeypatch.context() as broken:
        broken.setattr("vitriad.embed.write_features", lambda *_, **__: (_ for _ in ()).throw(OSError("no space")))
        assert main([*words, "--optimize"]) == 1
    assert main(words) == 1
    assert "optimize" in capsys.readouterr().err
    assert main([*words, "--optimize"]) == 0


def test_what_cannot_be_optimised_is_named(monkeypatch):
    with pytest.raises(InputError, match="expected True, False, 'float32' or 'bfloat16', got 'int8'"):
        vitriad.load("digits-vit", "torch", optimize="int8")
    monkeypatch.setattr("vit_torch.pretrained.PreTrainedModel.framework", "tf")
    with pytest.raises(InputError, match=r"is no model of PyTorch.*\n.*--backend torch"):
        vitriad.load("digits-vit", "torch", optimize=True)
