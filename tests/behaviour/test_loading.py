"""Saving and loading: round trips, reports, hand-overs, and what the documentation's own lines do."""

import gc
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from sameness import check_same, check_tensors
from small_models import FIELDS

from conversion import save_pretrained
from vit_core import CheckpointError, ConfigError, InputError, MissingFileError, ViTConfig
from vit_core.parameters import parameter_table
from vit_core.positions import resize_table
from vit_core.projections import bilinear_matrix
from vit_core.tensors import from_numpy, to_numpy
from vitriad import load

CLASSIFIER = "ViTForImageClassification"


def check_weights(model, other) -> None:
    check_tensors(model.canonical_tensors(), other.canonical_tensors())


@pytest.mark.every_day("torch", "ViTModel-5GB", "ViTMAEForPreTraining-4000")
@pytest.mark.parametrize("shard", ["5GB", 4000])
def test_round_trip(backend, name, shard, tmp_path):
    model = backend.make_model(name)
    model.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors").exists() == (shard == "5GB")
    loaded, info = backend.cls(name).from_pretrained(tmp_path, output_loading_info=True)
    check_weights(loaded, model)
    assert {key: value for key, value in info.items() if value} == {}
    assert loaded.config.architectures == [name]
    assert loaded.config.dtype == "float32"


def test_files_have_the_canonical_names_and_layouts(backend, name, tmp_path):
    tensors = backend.make_tensors(name)
    backend.make_model(name).save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert set(stored) == set(tensors)
    for key, value in tensors.items():
        np.testing.assert_array_equal(stored[key], value, err_msg=key)


# file of this class -> loaded as that class: what is missing and what is left over, as prefixes
MIM_ONLY = {"decoder.0", "vit.embeddings.mask_token"}
HAND_OVERS = [
    (CLASSIFIER, "ViTModel", {"pooler.dense"}, {"classifier"}),
    ("ViTModel", CLASSIFIER, {"classifier"}, {"pooler.dense"}),
    ("ViTForMaskedImageModeling", CLASSIFIER, {"classifier"}, MIM_ONLY),
    (CLASSIFIER, "ViTForMaskedImageModeling", MIM_ONLY, {"classifier"}),
    ("ViTMAEForPreTraining", CLASSIFIER, {"classifier"}, {"decoder"}),
    ("ViTMAEForPreTraining", "ViTMAEModel", set(), {"decoder"}),
    ("ViTModel", "ViTMAEModel", set(), {"pooler.dense"}),
    ("ViTMAEModel", "ViTMAEForPreTraining", {"decoder"}, set()),
]


@pytest.mark.every_day("torch", "missing0", "missing4")
@pytest.mark.parametrize(("source", "target", "missing", "unexpected"), HAND_OVERS)
def test_hand_overs_between_classes(backend, source, target, missing, unexpected, tmp_path):
    model = backend.make_model(source)
    model.save_pretrained(tmp_path)
    decoder = {key: value for key, value in FIELDS[target].items() if key.startswith("decoder")}
    loaded, info = backend.cls(target).from_pretrained(tmp_path, output_loading_info=True, **decoder)
    for found, prefixes in ((info["missing_keys"], missing), (info["unexpected_keys"], unexpected)):
        assert {key for key in found if not key.startswith(tuple(prefixes))} == set()
        assert {prefix for prefix in prefixes if not any(key.startswith(prefix) for key in found)} == set()
    ours, theirs = (one.base_model.canonical_tensors() for one in (loaded, model))
    for key in [key for key in theirs if not key.startswith("pooler") and "mask_token" not in key]:
        np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)
    assert all(np.isfinite(array).all() for array in loaded.canonical_tensors().values())
    assert np.isfinite(to_numpy(loaded(**backend.make_inputs(target))[0])).all()


def test_grey_images_and_larger_patches_give_what_the_checkpoint_gives(backend, tmp_path):
    """The same picture in one channel, and with every patch enlarged bilinearly: the same tokens, up to rounding."""
    model, grey = backend.make_model(CLASSIFIER), backend.make_inputs(CLASSIFIER)
    model.save_pretrained(tmp_path)
    pixels = to_numpy(grey["pixel_values"])[:, :1]
    expected = model(from_numpy(np.repeat(pixels, 3, axis=1), backend.tensors_word)).logits
    options = {"num_channels": 1, "patch_size": (6, 8), "image_size": (18, 40), "adapt": ("channels", "patches")}
    loaded = backend.cls(CLASSIFIER).from_pretrained(tmp_path, **options)
    patches = pixels.reshape(2, 1, 3, 4, 5, 4)  # rows of patches, rows of one, columns of patches, columns of one
    rows, columns = bilinear_matrix(4, 6), bilinear_matrix(4, 8)
    enlarged = np.einsum("ri,sj,bcyixj->bcyrxs", rows, columns, patches).reshape(2, 1, 18, 40)
    got = loaded(from_numpy(enlarged.astype(np.float32), backend.tensors_word)).logits
    check_same(got, expected, 1e-5)
    with pytest.raises(CheckpointError, match=r"adapt='channels' \(--adapt channels\) brings the patch projection"):
        backend.cls(CLASSIFIER).from_pretrained(tmp_path, num_channels=4)


@pytest.mark.parametrize("relative", ["dinov2_5", "msn", "msn_classifier_5"])
def test_a_relative_of_the_vit_is_loaded_as_the_class_that_it_is(backend, relative):
    folder = Path(__file__).parent.parent / "golden" / "relatives" / relative
    model, info = load(folder, backend=backend.name, output_loading_info=True)
    stored = np.load(folder / "outputs.npz")
    (output,) = {"last_hidden_state", "logits"} & {*stored.files}
    assert info["missing_keys"] == []
    got = model(from_numpy(stored["pixel_values"].astype(np.float32), backend.tensors_word))
    check_same(got[output], stored[output], 1e-5)


def test_missing_parts_are_reported_once_by_name(backend, tmp_path, caplog):
    backend.make_model("ViTMAEForPreTraining").save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO, logger="vitriad"):
        backend.cls(CLASSIFIER).from_pretrained(tmp_path, num_labels=4)
    assert caplog.text.count("classifier.weight") == 1
    assert caplog.text.count("decoder.decoder_embed.weight") == 1


def test_another_number_of_labels(backend, tmp_path):
    backend.make_model(CLASSIFIER).save_pretrained(tmp_path)
    cls = backend.cls(CLASSIFIER)
    with pytest.raises(CheckpointError, match=r"classifier\.weight") as caught:
        cls.from_pretrained(tmp_path, num_labels=7)
    assert "ignore_mismatched_sizes" in str(caught.value)
    keywords = {"ignore_mismatched_sizes": True, "output_loading_info": True}
    model, info = cls.from_pretrained(tmp_path, num_labels=7, **keywords)
    assert model.canonical_tensors()["classifier.weight"].shape == (7, 24)
    assert sorted(info["mismatched_keys"]) == ["classifier.bias", "classifier.weight"]


def test_another_image_size_resizes_the_positions(backend, tmp_path):
    model = backend.make_model(CLASSIFIER)
    model.save_pretrained(tmp_path)
    loaded = backend.cls(CLASSIFIER).from_pretrained(tmp_path, image_size=(24, 28))
    key = "vit.embeddings.position_embeddings"
    expected = resize_table(model.canonical_tensors()[key], (3, 5), (6, 7))
    np.testing.assert_array_equal(loaded.canonical_tensors()[key], expected)


@pytest.mark.every_day("torch", "ViTMAEModel")
def test_pruned_models_stay_pruned(backend, name, tmp_path):
    model, inputs = backend.make_model(name), backend.make_inputs(name)
    model.prune_heads({0: [0, 2], 1: [1]})
    model.save_pretrained(tmp_path)
    loaded = backend.as_tested(backend.cls(name).from_pretrained(tmp_path))
    check_weights(loaded, model)
    assert loaded.config.pruned_heads == {0: [0, 2], 1: [1]}
    check_same(loaded(**inputs).to_tuple(), model(**inputs).to_tuple())


# The documentation's own calls: class, class of the published file, keywords.
DOCUMENTED = [
    ("ViTModel", "ViTModel", {}),
    ("ViTForMaskedImageModeling", "ViTModel", {"encoder_stride": 16}),
    (CLASSIFIER, CLASSIFIER, {}),
    ("ViTMAEModel", "ViTMAEForPreTraining", {}),
    ("ViTMAEModel", "ViTMAEForPreTraining", {"attn_implementation": "sdpa", "from_pt": True}),
    ("ViTMAEForPreTraining", "ViTMAEForPreTraining", {}),
]


@pytest.mark.every_day("torch", "ViTForImageClassification", "keywords4")
@pytest.mark.parametrize(("cls", "stored", "keywords"), DOCUMENTED)
def test_documented_calls(backend, cls, stored, keywords, tmp_path):
    backend.make_model(stored, image_size=32, patch_size=16).save_pretrained(tmp_path)
    backend.package.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    image_processor = backend.package.AutoImageProcessor.from_pretrained(tmp_path)
    model = backend.cls(cls).from_pretrained(tmp_path, **keywords)
    image = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    inputs = image_processor(images=image, return_tensors=backend.tensors_word)
    for call in (lambda: model(**inputs), *backend.other_calls(model, inputs)):
        assert all(np.isfinite(to_numpy(value)).all() for value in call().to_tuple())


@pytest.mark.parametrize(
    ("keywords", "needle"),
    [
        ({"device_map": "balanced"}, "device_map"),
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"load_in_8bit": True}, "load_in_8bit"),
        ({"use_safetensors": False}, "use_safetensors"),
        ({"hiden_size": 3}, "hidden_size"),
    ],
)
def test_keywords_that_mean_nothing_here_are_refused(backend, keywords, needle, tmp_path):
    backend.make_model("ViTModel").save_pretrained(tmp_path)
    with pytest.raises((InputError, CheckpointError, ConfigError), match=needle) as caught:
        backend.cls("ViTModel").from_pretrained(tmp_path, **keywords)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize("keywords", [{"from_pt": True}, {"use_safetensors": True}, {"trust_remote_code": False}])
def test_keywords_that_hold_are_accepted(backend, keywords, tmp_path):
    backend.make_model("ViTModel").save_pretrained(tmp_path)
    backend.cls("ViTModel").from_pretrained(tmp_path, **keywords)


def test_missing_folders_and_callable_activations(backend, tmp_path):
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(MissingFileError):
            backend.cls("ViTModel").from_pretrained(folder)
    model = backend.make_model("ViTModel", hidden_act=backend.relu)
    with pytest.raises(ConfigError, match="callable"):
        model.save_pretrained(tmp_path / "callable")
    assert not (tmp_path / "callable").exists()


def test_tensors_of_the_framework_are_taken_as_arrays_are(backend):
    name = "ViTForMaskedImageModeling"
    arrays = backend.make_tensors(name, "float64")
    with backend.doubles():
        tensors = {key: from_numpy(array, backend.tensors_word) for key, array in arrays.items()}
        model = backend.cls(name).from_tensors(backend.make_config(name), tensors)
        check_tensors(model.canonical_tensors(), arrays)


def test_training_leaves_the_file_and_the_tensors_of_a_model_alone(backend, tmp_path):
    tensors = backend.make_tensors("ViTModel")
    tensors["layernorm.bias"].flags.writeable = False
    before = {key: value.copy() for key, value in tensors.items()}
    model = backend.cls("ViTModel").from_tensors(backend.make_config("ViTModel"), tensors)
    model.save_pretrained(tmp_path)
    stored = (tmp_path / "model.safetensors").read_bytes()
    for trained in (model, backend.cls("ViTModel").from_pretrained(tmp_path)):
        backend.add_one(trained)
        found = trained.canonical_tensors()["layernorm.bias"]
        np.testing.assert_array_equal(found, before["layernorm.bias"] + 1)
    assert (tmp_path / "model.safetensors").read_bytes() == stored
    check_tensors(tensors, before)


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy at an address where XLA takes memory over as it is."""
    room = np.empty(array.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    found = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    found[...] = array
    return found


def test_a_model_keeps_its_weights_when_the_tensors_that_it_was_made_from_change(backend):
    for held in (aligned, lambda array: aligned(array.T).T):  # in the layout of PyTorch, and in that of Keras and Flax
        tensors = {key: held(array) for key, array in backend.make_tensors("ViTModel").items()}
        before = {key: value.copy() for key, value in tensors.items()}
        model = backend.cls("ViTModel").from_tensors(backend.make_config("ViTModel"), tensors)
        for array in tensors.values():
            array[...] = 0
        check_tensors(model.canonical_tensors(), before)


def status(key: str) -> int:
    """What the system says of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{key}:")))


if sys.platform == "linux":  # which alone measures a peak anew

    def test_loading_takes_the_memory_of_the_weights_once(backend, tmp_path):
        sizes = {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "intermediate_size": 2048}
        config = ViTConfig(**sizes, image_size=32, patch_size=16)
        tensors = {
            name: np.full(row.shape, 0.5, np.float32) for name, row in parameter_table(config, "ViTModel").items()
        }
        save_pretrained(tmp_path, config, tensors, class_name="ViTModel")
        file = (tmp_path / "model.safetensors").stat().st_size
        del tensors
        backend.cls("ViTModel").from_pretrained(tmp_path)  # what a first load imports and compiles
        gc.collect()
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak is measured from here
        model = backend.cls("ViTModel").from_pretrained(tmp_path)
        taken = (status("VmHWM") - before) / file
        assert taken < (0.6 if backend.name == "torch" else 1.5), f"{taken:.2f} of the file"
        assert model.num_parameters() * 4 > 0.99 * file


def test_damage_is_told_before_what_it_led_to(backend, tmp_path):
    backend.make_model("ViTModel").save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-4:] = np.float32(np.nan).tobytes()
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"not as manifest\.json records it"):
        backend.cls("ViTModel").from_pretrained(tmp_path)
    for verify in ("auto", False):
        (tmp_path / "manifest.json").unlink(missing_ok=True)
        with pytest.raises(CheckpointError, match=r"1 of .* values are NaN or infinite"):
            backend.cls("ViTModel").from_pretrained(tmp_path, verify=verify)
    assert gc.isenabled()


def test_from_tensors_wants_exactly_the_parameters(backend):
    tensors = backend.make_tensors("ViTModel")
    tensors["extra"] = tensors.pop("layernorm.bias")
    with pytest.raises(CheckpointError, match=r"1 missing: layernorm\.bias; 1 unknown: extra"):
        backend.cls("ViTModel").from_tensors(backend.make_config("ViTModel"), tensors)


def test_subclasses_save_and_load_as_their_class(backend, tmp_path):
    class Mine(backend.cls(CLASSIFIER)):
        pass

    model = Mine(backend.make_config(CLASSIFIER))
    model.save_pretrained(tmp_path)
    loaded = Mine.from_pretrained(tmp_path)
    assert type(loaded) is Mine
    assert loaded.config.architectures == [CLASSIFIER]
    check_weights(loaded, model)
