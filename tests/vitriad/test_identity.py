"""Files of features say which model made them; no others are mixed with them."""

import json
import shutil

import numpy as np
import pytest
from backends import INSTALLED

import vitriad
from vit_core.errors import InputError
from vit_core.images.processor import ViTImageProcessor
from vit_core.images.sources import image_sources
from vitriad import embed, models
from vitriad.cli import main
from vitriad.feature_files import read_features, read_origin
from vitriad.features import Embedder
from vitriad.identity import Origin, encoder_digest
from vitriad.viewing import load_encoder

DIGITS = list(map(str, models.digit_files()))


def other(folder, change=None, **fields):
    """A copy of the digits classifier with other weights, or other fields of its configuration."""
    model = vitriad.load("digits-vit", INSTALLED[0])
    tensors = {name: array.copy() for name, array in model.canonical_tensors().items()}
    if change:
        tensors[change] *= 1.01
    config = type(model.config).from_dict({**model.config.to_dict(), **fields})
    type(model).from_tensors(config, tensors).save_pretrained(folder)
    ViTImageProcessor.from_pretrained(models.find("digits-vit")).save_pretrained(folder)
    return str(folder)


# --- the digest ------------------------------------------------------------------------------------------------------


def test_an_encoder_has_one_digest_in_every_backend_and_under_every_head():
    found = {encoder_digest(load_encoder("digits-vit", backend)) for backend in INSTALLED}
    found |= {encoder_digest(vitriad.load("digits-vit", backend)) for backend in INSTALLED}
    assert len(found) == 1
    masked = {encoder_digest(load_encoder("digits-vit-mae", backend)) for backend in INSTALLED}
    masked |= {encoder_digest(vitriad.load("digits-vit-mae", backend)) for backend in INSTALLED}
    assert len(masked) == 1 and masked != found


@pytest.mark.parametrize(
    ("options", "is_same"),
    [
        ({"change": "vit.encoder.layer.1.output.dense.bias"}, False),
        ({"num_attention_heads": 2}, False),
        ({"layer_norm_eps": 1e-5}, False),
        ({"hidden_act": "relu"}, False),
        ({"change": "classifier.weight"}, True),
        ({"hidden_dropout_prob": 0.5, "initializer_range": 0.1, "encoder_stride": 4}, True),
        ({"id2label": {str(i): f"digit {i}" for i in range(10)}, "label2id": {}}, True),
        ({"image_size": (16, 16), "patch_size": (4, 4)}, True),
    ],
)
def test_a_digest_is_of_what_features_depend_on(options, is_same, tmp_path):
    change = options.pop("change", None)
    found = encoder_digest(load_encoder(other(tmp_path / "m", change, **options), INSTALLED[0]))
    assert (found == encoder_digest(load_encoder("digits-vit", INSTALLED[0]))) is is_same


# --- the files -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[".npz", ".npy", ".parquet"])
def made(request, tmp_path_factory):
    """A file of features in every format, of the digits' mean of patches at layer 2."""
    out = tmp_path_factory.mktemp("made") / f"out{request.param}"
    embedder = Embedder("digits-vit", INSTALLED[0], features=("patch_mean",), layers=(2,))
    embed.embed(embedder, image_sources(DIGITS), out, batch_size=4)
    return out


def test_every_format_says_its_model_and_its_features(made):
    origin = read_origin(made)
    assert (origin.model, origin.commit, [*origin.columns]) == ("digits-vit", None, ["layer_2.patch_mean"])
    assert origin.encoder == encoder_digest(load_encoder("digits-vit", INSTALLED[0]))
    assert ViTImageProcessor.from_dict(origin.processor).to_dict() == origin.processor
    assert [*read_features(made)[1]] == ["layer_2.patch_mean"]


def test_search_takes_the_model_that_made_the_file_in_any_backend(made, capsys):
    for backend in INSTALLED:
        assert main(["search", str(made), DIGITS[3], "--backend", backend, "--json"]) == 0
        captured = capsys.readouterr()
        first = json.loads(captured.out)["nearest"][0]
        assert first["name"] == DIGITS[3] and "does not say" not in captured.err
        np.testing.assert_allclose(first["cosine"], 1, atol=1e-6)


@pytest.mark.parametrize("options", [{"change": "vit.encoder.layer.1.output.dense.bias"}, {"layer_norm_eps": 1e-5}])
def test_search_refuses_another_model_of_the_same_width(made, options, tmp_path, capsys):
    model = other(tmp_path / "m", **options)
    assert main(["search", str(made), DIGITS[0], "--model", model]) == 1
    text = capsys.readouterr().err
    assert "its features are of digits-vit (encoder " in text and f"would be of {model} (encoder " in text
    assert "--model digits-vit\n" in text and text.count("\n") <= 3


def test_search_prepares_pictures_as_the_file_s_images_were(tmp_path, capsys):
    ViTImageProcessor(size=8, image_mean=[0.3], image_std=[0.2]).save_pretrained(tmp_path / "own")
    out = str(tmp_path / "out.npz")
    assert main(["embed", *DIGITS, "--out", out, "--processor", str(tmp_path / "own"), "--batch-size", "4"]) == 0
    capsys.readouterr()
    assert main(["search", out, DIGITS[5], "--json"]) == 0
    np.testing.assert_allclose(json.loads(capsys.readouterr().out)["nearest"][0]["cosine"], 1, atol=1e-6)
    assert main(["search", out, DIGITS[5], "--processor", str(models.find("digits-vit"))]) == 1
    text = capsys.readouterr().err
    assert "images were prepared otherwise for it: " in text and "image_mean" in text and text.count("\n") <= 3


def test_a_file_that_does_not_name_its_model_is_searched_with_a_word(made, tmp_path, capsys):
    names, columns = read_features(made)
    np.savez(tmp_path / "old.npz", name=np.array(names), patch_mean=columns["layer_2.patch_mean"])
    assert read_origin(tmp_path / "old.npz") is None
    assert main(["search", str(tmp_path / "old.npz"), DIGITS[0]]) == 0
    assert "old.npz does not say which model made it; it is searched with digits-vit." in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", "{", '{"model": 3}', '{"model": "a", "encoder": "b", "processor": 1}'])
def test_a_damaged_origin_is_refused(text, tmp_path):
    np.savez(tmp_path / "bad.npz", name=np.array(["a"]), origin=np.array(text), class_token=np.zeros((1, 48)))
    with pytest.raises(InputError, match="no features of images as vitriad embed writes them"):
        read_origin(tmp_path / "bad.npz")
    with pytest.raises(ValueError, match=r".+"):
        Origin.of_text(text)


def test_probe_and_compare_say_which_model(made, tmp_path, capsys):
    labels = {name: name.rpartition("/")[2][0] for name in read_features(made)[0]}
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    assert main(["probe", str(made), "--labels", str(tmp_path / "labels.json")]) == 0
    assert capsys.readouterr().out.startswith("layer_2.patch_mean of digits-vit (encoder ")
    assert main(["probe", str(made), "--labels", str(tmp_path / "labels.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["encoder"] == read_origin(made).encoder
    for model, said in (("digits-vit", "one encoder"), ("digits-vit-mae", "two encoders")):
        assert main(["compare", "digits-vit", model, *DIGITS[:4]]) == 0
        assert f"digits-vit and {model}, 4 images, {said}" in capsys.readouterr().out


# --- runs that go on -------------------------------------------------------------------------------------------------


def interrupted(embedder, out, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(embed, "_finished", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        embed.embed(embedder, image_sources(DIGITS), out, batch_size=4)


@pytest.mark.parametrize("options", [{"change": "vit.encoder.layer.1.output.dense.bias"}, {"layer_norm_eps": 1e-5}])
def test_an_interrupted_run_does_not_go_on_with_another_model(options, tmp_path, monkeypatch):
    out = tmp_path / "out.npz"
    interrupted(Embedder("digits-vit", INSTALLED[0]), out, monkeypatch)
    with pytest.raises(InputError, match="an interrupted run that differs in: model"):
        embed.embed(Embedder(other(tmp_path / "m", **options), INSTALLED[0]), image_sources(DIGITS), out, batch_size=4)


def test_an_interrupted_run_goes_on_under_another_name_of_its_model(tmp_path, monkeypatch):
    copy, out = shutil.copytree(models.find("digits-vit"), tmp_path / "copy"), tmp_path / "out.npz"
    interrupted(Embedder("digits-vit", INSTALLED[0]), out, monkeypatch)
    embed.embed(Embedder(copy, INSTALLED[0]), image_sources(DIGITS), out, batch_size=4)
    embed.embed(Embedder("digits-vit", INSTALLED[0]), image_sources(DIGITS), tmp_path / "whole.npz", batch_size=4)
    assert out.read_bytes() == (tmp_path / "whole.npz").read_bytes()
