"""What is uploaded, and that it comes back as it was."""

import json

import numpy as np
import pytest
from backends import INSTALLED, canonical
from hub.conftest import CONFIG
from hub.loopback import Hub, failing

import conversion
from vit_core import ViTConfig, ViTImageProcessor
from vit_core.errors import CheckpointError, ConfigError, InputError, MissingFileError
from vit_core.hub.model_card import model_card
from vit_core.parameters import draw
from vitriad.auto import model_class

NAME = "owner/name"
MODEL_FILES = {"README.md", "config.json", "manifest.json", "model.safetensors"}


def make_model(seed=0, backend=INSTALLED[0], name="ViTForImageClassification"):
    return model_class(name, backend).from_tensors(CONFIG, draw(CONFIG, name, seed=seed))


@pytest.fixture
def access(hub):
    hub.is_private = True
    return {"endpoint": hub.url, "token": Hub.TOKEN}


def assert_comes_back(model, options, backend=INSTALLED[0], **more):
    found = canonical(backend, type(model).from_pretrained(NAME, **options, **more))
    for name, array in canonical(backend, model).items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_a_model_that_is_pushed_comes_back_bit_by_bit(hub, access, options, backend):
    model = make_model(backend=backend)
    assert model.push_to_hub(NAME, **access) == f"{hub.url}/{NAME}/commit/{hub.branches[NAME, 'main']}"
    assert {*hub.files(NAME)} == {".gitattributes", *MODEL_FILES}
    assert_comes_back(model, options, backend)
    assert not any(Hub.TOKEN in request.path or Hub.TOKEN.encode() in request.body for request in hub.log)


def test_configuration_and_processor_are_pushed_beside_it(hub, access, options):
    processor = ViTImageProcessor(size=8)
    CONFIG.push_to_hub(NAME, **access)
    processor.push_to_hub(NAME, **access)
    assert {*hub.files(NAME)} == {".gitattributes", "config.json", "preprocessor_config.json"}
    assert ViTConfig.from_pretrained(NAME, **options) == CONFIG
    assert ViTImageProcessor.from_pretrained(NAME, **options) == processor


def test_a_card_that_a_person_wrote_is_kept(hub, access):
    hub.commit(NAME, {"README.md": b"mine"})
    make_model().push_to_hub(NAME, license="mit", **access)
    assert hub.files(NAME)["README.md"] == b"mine"


def test_weights_that_are_replaced_go_and_others_stay_verified(hub, access, options):
    hub.commit(NAME, {"pytorch_model.bin": b"theirs", "sub/model.safetensors": b"theirs"})
    single, sharded, half = make_model(0), make_model(1), make_model(2)
    single.push_to_hub(NAME, **access)
    half.push_to_hub(NAME, variant="fp16", **access)
    sharded.push_to_hub(NAME, max_shard_size=4000, **access)
    files = hub.files(NAME)
    assert "model.safetensors" not in files and {"model.fp16.safetensors", "pytorch_model.bin"} < {*files}
    assert files["sub/model.safetensors"] == b"theirs"
    recorded = json.loads(files["manifest.json"])["files"]
    assert {*recorded} == {name for name in files if name.startswith("model")}
    assert_comes_back(sharded, options, verify=True)
    assert_comes_back(half, options, variant="fp16", verify=True)
    single.push_to_hub(NAME, **access)
    assert_comes_back(single, options, verify=True)
    assert not [name for name in hub.files(NAME) if "-of-" in name or "index" in name]


def test_a_damaged_manifest_is_replaced(hub, access, options):
    hub.commit(NAME, {"manifest.json": b"{", "model.fp16.safetensors": b"x"})
    make_model().push_to_hub(NAME, **access)
    assert_comes_back(make_model(), options, verify=True)


def test_a_commit_goes_to_a_branch_or_a_pull_request(hub, access, options):
    before = hub.commit(NAME, {})
    make_model().push_to_hub(NAME, revision="dev", **access)
    assert_comes_back(make_model(), options, revision="dev")
    address = make_model(1).push_to_hub(NAME, create_pr=True, **access)
    assert address == f"{hub.url}/{NAME}/discussions/1"
    assert_comes_back(make_model(1), options, revision="refs/pr/1")
    assert hub.branches[NAME, "main"] == before
    with pytest.raises(InputError, match="expected revision= or create_pr=True, got both"):
        CONFIG.push_to_hub(NAME, revision="dev", create_pr=True, **access)


def test_a_new_repository_is_made_as_asked(hub, access):
    make_model().push_to_hub("name", private=True, commit_message="First", **access)
    made = json.loads(hub.log[0].body)
    assert made["name"] == "name" and made["visibility"] == "private"
    commit = next(request for request in hub.log if "/commit/" in request.path)
    assert json.loads(commit.body.splitlines()[0])["value"]["summary"] == "First"
    assert {*hub.files("someone/name")} == {".gitattributes", *MODEL_FILES}


@pytest.mark.parametrize(
    ("path", "status", "part"),
    [
        ("api/repos/create", 403, "HTTP 403, the token does not allow this"),
        ("api/repos/create", 401, "HTTP 401"),
        ("preupload/main", 400, "HTTP 400"),
        ("commit/main", 500, "HTTP 500"),
        ("commit/main", 412, "HTTP 412"),
    ],
)
def test_a_push_that_is_refused_says_so(hub, access, path, status, part):
    hub.faults["POST", path] = [failing(status)]
    with pytest.raises(CheckpointError) as caught:
        make_model().push_to_hub(NAME, **access)
    assert str(caught.value).startswith(f"{NAME}: the hub refused: {part}") and Hub.TOKEN not in str(caught.value)
    assert not hub.branches or [*hub.files(NAME)] == [".gitattributes"]


def test_nothing_is_asked_for_a_push_that_cannot_be(hub, access):
    with pytest.raises(MissingFileError, match="not a hub name"):
        CONFIG.push_to_hub("a/b/c", **access)
    with pytest.raises(ConfigError, match="callable"):
        ViTConfig(hidden_act=abs).push_to_hub(NAME, **access)
    assert hub.log == []


# Model cards


def test_a_card_says_what_the_model_is(tmp_path):
    labels = {0: "cat", 1: "`| <b>\n# x", 2: "\u00fc\ud800"}
    config = ViTConfig(**{**CONFIG.to_dict(), "id2label": labels, "label2id": None, "image_size": (8, 12)})
    tensors = draw(config, "ViTForImageClassification", seed=0)
    conversion.save_pretrained(tmp_path / "m", config, tensors, class_name="ViTForImageClassification", variant="x")
    card = model_card(config, tmp_path / "m", NAME, "x", license='mit"\ntags: evil')
    front, body = card.removeprefix("---\n").split("\n---\n")
    assert front.splitlines() == [
        "library_name: vitriad",
        "pipeline_tag: image-classification",
        'license: "mit\\"\\ntags: evil"',
        "tags:",
        "- vit",
        "- vision-transformer",
    ]
    assert f"- Parameters: {sum(array.size for array in tensors.values()):,}\n" in body
    assert "- Image size: 8 x 12 pixels\n- Patch size: 4 x 4 pixels\n" in body
    for prefix in ("vit_torch.", "vit_tf.TF", "vit_flax.Flax"):
        assert f'model = {prefix}ViTForImageClassification.from_pretrained("owner/name", variant="x")\n' in body
    assert body.endswith('    0: "cat"\n    1: "`| <b>\\n# x"\n    2: "\u00fc\ud800"\n')


def test_a_card_names_neither_a_license_nor_labels_that_are_none(tmp_path):
    conversion.save_pretrained(tmp_path / "m", CONFIG, draw(CONFIG, "ViTModel", seed=0), class_name="ViTModel")
    card = model_card(CONFIG, tmp_path / "m", NAME)
    assert "license" not in card and "Labels" not in card and "pipeline_tag: image-feature-extraction" in card


def test_a_card_of_many_labels_shows_some(tmp_path):
    config = ViTConfig(**{**CONFIG.to_dict(), "id2label": None, "label2id": None, "num_labels": 60})
    tensors = draw(config, "ViTForImageClassification", seed=0)
    conversion.save_pretrained(tmp_path / "m", config, tensors, class_name="ViTForImageClassification")
    assert model_card(config, tmp_path / "m", NAME).endswith(
        '    49: "LABEL_49"\n    ... and 10 more, in config.json\n'
    )
