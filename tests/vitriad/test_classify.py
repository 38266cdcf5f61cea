"""`vitriad classify`: scores, skipped images, and models that cannot classify."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from backends import INSTALLED
from PIL import Image

import vitriad
from conversion import load
from vit_core.installing import install_command
from vit_core.reference import forward
from vit_core.tensors import to_numpy
from vitriad import models
from vitriad.cli import main

DIGITS = models.FOLDER / "digits-vit"
FILES = models.digit_files()


def classify(capsys, *words) -> list[dict]:
    assert main(["classify", "--json", *map(str, words)]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def changed(tmp_path: Path, **fields) -> str:
    """A copy of the digits classifier with another config.json."""
    folder = shutil.copytree(DIGITS, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))
    return str(folder)


def test_one_json_line_per_image_in_order(capsys):
    lines = classify(capsys, "--top-k", 4, *FILES)
    assert [line["path"] for line in lines] == list(map(str, FILES))
    assert [line["label"] == Path(line["path"]).name[0] for line in lines].count(True) >= 19
    for line in lines:
        scores = [entry["score"] for entry in line["top"]]
        assert line["top"][0] == {"label": line["label"], "score": line["score"]}
        assert scores == sorted(scores, reverse=True)
        assert (len(scores), min(scores) >= 0, sum(scores) <= 1 + 1e-9) == (4, True, True)


@pytest.mark.parametrize("backend", INSTALLED)
def test_scores_are_those_of_the_oracle_in_every_backend(capsys, backend):
    lines = classify(capsys, "--backend", backend, "--top-k", 10, *FILES)
    (config, tensors, _), processor = load(DIGITS), vitriad.AutoImageProcessor.from_pretrained(DIGITS)
    scans = [np.asarray(Image.open(file)) for file in FILES]
    pixels = processor(scans, input_data_format="none", return_tensors="np")["pixel_values"]
    odds = np.exp(forward("ViTForImageClassification", config, tensors, pixels)["logits"])
    for line, expected in zip(lines, odds / odds.sum(axis=1, keepdims=True), strict=True):
        scores = {entry["label"]: entry["score"] for entry in line["top"]}
        np.testing.assert_allclose([scores[label] for label in "0123456789"], expected, rtol=0, atol=1e-5)


def test_scores_are_probabilities_of_all_classes(capsys):
    (line,) = classify(capsys, "--top-k", 99, FILES[0])
    assert sorted(entry["label"] for entry in line["top"]) == list("0123456789")
    np.testing.assert_allclose(sum(entry["score"] for entry in line["top"]), 1, rtol=1e-12)


def test_table_for_people(capsys):
    assert main(["classify", "--top-k", "2", *map(str, FILES[:3])]) == 0
    captured = capsys.readouterr()
    assert [line.split()[::2][0] for line in captured.out.splitlines()] == list(map(str, FILES[:3]))
    assert [line.count("%") for line in captured.out.splitlines()] == [2, 2, 2]
    assert "it/s" not in captured.err


@pytest.mark.parametrize(("at_terminal", "count", "shown"), [(True, 20, True), (True, 3, False), (False, 20, False)])
def test_progress_is_shown_for_many_images_at_a_terminal(capsys, monkeypatch, at_terminal, count, shown):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: at_terminal)
    assert main(["classify", "--json", *map(str, FILES[:count])]) == 0
    captured = capsys.readouterr()
    assert ("20/20" in captured.err) is shown
    assert len([json.loads(line) for line in captured.out.splitlines()]) == count


def test_unreadable_images_are_reported_and_skipped(capsys, tmp_path):
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(FILES[0].read_bytes()[:50])
    assert main(["classify", "--json", str(FILES[0]), str(damaged), str(tmp_path / "none.png"), str(FILES[3])]) == 3
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert [line["path"] for line in lines] == [str(FILES[0]), str(damaged), str(tmp_path / "none.png"), str(FILES[3])]
    assert [sorted(line) for line in lines[:2]] == [["label", "path", "score", "top"], ["error", "path"]]
    assert lines[2]["error"] == f"{tmp_path / 'none.png'}: no such file."
    assert [line for line in captured.err.splitlines() if line.startswith(f"vitriad: skipped: {damaged}: ")]
    assert f"vitriad: skipped: {tmp_path / 'none.png'}: no such file." in captured.err


def test_a_skipped_image_changes_nothing_for_the_others(capsys, tmp_path):
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(FILES[0].read_bytes()[:50])
    names = [str(name) for file in FILES for name in (file, damaged, file)]  # more than one batch
    assert main(["classify", "--json", *names]) == 3
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["path"] for line in lines] == names
    scores = [line["score"] for line in lines if "score" in line]
    np.testing.assert_allclose(
        scores, [line["score"] for line in classify(capsys, *FILES) for _ in range(2)], atol=1e-6
    )


def test_a_folder_stands_for_the_images_in_it(capsys, tmp_path):
    for name, file in (("b/2.PNG", FILES[2]), ("b/1.png", FILES[1]), ("a.png", FILES[0])):
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / "all" / name)
    (tmp_path / "all" / "notes.txt").write_text("no image")
    (tmp_path / "none").mkdir()
    lines = classify(capsys, tmp_path / "all", FILES[3])
    found = [line["path"].removeprefix(f"{tmp_path}/all/") for line in lines]
    assert found == ["a.png", "b/1.png", "b/2.PNG", str(FILES[3])]
    assert main(["classify", str(tmp_path / "none")]) == 1
    assert "no image file in this folder" in capsys.readouterr().err


def test_a_path_given_twice_is_shown_twice(capsys):
    assert len(classify(capsys, FILES[0], FILES[0])) == 2


def test_what_a_terminal_cannot_show_is_escaped(capsys, tmp_path):
    labels = [f"label \udcff{i}" for i in range(10)]
    ids = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    assert main(["classify", "--model", changed(tmp_path, **ids), str(FILES[0])]) == 0
    assert "label \\udcff0 100.0%" in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "CMYK"])
def test_grayscale_model_takes_the_luminance_of_other_images(capsys, tmp_path, mode):
    image = Image.open(FILES[14]).convert("RGB" if mode == "CMYK" else mode).convert(mode)
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    image.save(path)
    gray, other = classify(capsys, FILES[14], path)
    np.testing.assert_allclose(other["score"], gray["score"], atol=1e-6)
    assert other["label"] == gray["label"]


def test_sixteen_bits_are_scaled_rather_than_clipped(capsys, tmp_path):
    deep = np.asarray(Image.open(FILES[14])).astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    eight, sixteen = classify(capsys, FILES[14], tmp_path / "deep.png")
    np.testing.assert_allclose(sixteen["score"], eight["score"], atol=1e-2)  # these are resized without rounding
    assert sixteen["label"] == eight["label"]


@pytest.mark.parametrize(("convert", "status"), [(None, 0), (True, 0), (False, 3)])
def test_rgb_model_takes_grayscale_images_unless_its_processor_says_no(capsys, tmp_path, convert, status):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}
    config = vitriad.ViTConfig(**sizes, num_labels=3)
    vitriad.AutoModelForImageClassification.from_config(config).save_pretrained(tmp_path)
    vitriad.ViTImageProcessor(size=8, do_convert_rgb=convert).save_pretrained(tmp_path)
    assert main(["classify", "--model", str(tmp_path), str(FILES[0])]) == status


def test_without_a_processor_it_says_what_to_pass(capsys, tmp_path):
    folder = shutil.copytree(DIGITS, tmp_path / "model")
    (folder / "preprocessor_config.json").rename(tmp_path / "own.json")
    assert main(["classify", "--model", str(folder), str(FILES[0])]) == 1
    text = capsys.readouterr().err
    assert "no preprocessor_config.json there, and nothing tells" in text and "Pass --processor" in text
    assert text.count("\n") <= 3
    expected = classify(capsys, FILES[0])
    for processor in (tmp_path / "own.json", DIGITS):
        assert classify(capsys, "--model", folder, "--processor", processor, FILES[0]) == expected


def test_what_is_known_of_another_program_s_models_is_used(capsys, tmp_path):
    """An .npz file of Google's has no processor, and is told by its dialect; the same numbers as with one beside it."""
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}
    config = vitriad.ViTConfig(**sizes, num_labels=3, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6)
    vitriad.AutoModelForImageClassification.from_config(config).save_pretrained(tmp_path / "m")
    vitriad.ViTImageProcessor(size=8).save_pretrained(tmp_path / "m")
    vitriad.convert(tmp_path / "m", tmp_path / "x.npz", to="google")
    one, two = (classify(capsys, "--model", tmp_path / name, FILES[0])[0]["top"] for name in ("m", "x.npz"))
    assert [each["label"] for each in one] == [each["label"] for each in two]
    np.testing.assert_allclose([each["score"] for each in two], [each["score"] for each in one], rtol=1e-5)


def test_several_labels_per_image_are_scored_one_by_one(capsys, tmp_path):
    (line,) = classify(capsys, "--model", changed(tmp_path, problem_type="multi_label_classification"), FILES[0])
    model, processor = vitriad.load(DIGITS), vitriad.AutoImageProcessor.from_pretrained(DIGITS)
    pixels = processor(np.asarray(Image.open(FILES[0])), input_data_format="none", return_tensors="np")["pixel_values"]
    logit = to_numpy(model(pixel_values=pixels).logits).max()
    np.testing.assert_allclose(line["score"], 1 / (1 + np.exp(-logit)), rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"problem_type": "regression"}, "a regression model gives numbers"),
        ({"id2label": {"0": "x"}, "label2id": {"x": 0}}, "a regression model gives numbers"),
        ({"id2label": {}, "label2id": {}}, "num_labels is 0"),
        ({"architectures": ["ViTModel"]}, "a ViTModel does not classify"),
    ],
)
def test_models_without_classes_are_refused(capsys, tmp_path, fields, reason):
    assert main(["classify", "--model", changed(tmp_path, **fields), str(FILES[0])]) == 1
    captured = capsys.readouterr()
    assert (captured.out, reason in captured.err) == ("", True)


def test_a_classifier_that_was_never_trained_is_refused(capsys, tmp_path):
    config = vitriad.AutoConfig.from_pretrained(DIGITS)
    vitriad.AutoModel.from_config(config).save_pretrained(tmp_path)
    config.architectures = ["ViTForImageClassification"]
    config.save_pretrained(tmp_path)
    assert main(["classify", "--model", str(tmp_path), str(FILES[0])]) == 1
    assert "its classifier was never trained" in capsys.readouterr().err


def test_missing_backend_names_the_command(capsys, monkeypatch):
    monkeypatch.setattr("vitriad.auto.find_spec", lambda name: None)
    assert main(["classify", "--backend", "flax", str(FILES[0])]) == 1
    assert install_command("flax") in capsys.readouterr().err


def test_a_configuration_of_the_users_choice(tmp_path, capsys):
    """Bare weights, and a config.json that lies elsewhere."""
    folder = models.FOLDER / "digits-vit"
    (tmp_path / "weights.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (tmp_path / "preprocessor_config.json").write_bytes((folder / "preprocessor_config.json").read_bytes())
    words = ["classify", str(models.digit_files()[0]), "--model", str(tmp_path / "weights.safetensors"), "--json"]
    assert main([*words, "--backend", INSTALLED[0], "--config", str(folder / "config.json")]) == 0
    assert json.loads(capsys.readouterr().out)["label"] == "0"
    assert main(["inspect", words[3], "--config", str(folder / "config.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["num_attention_heads"] == 4
