"""Labels, metrics and weights in `fit` and `evaluate`, wherever people put them; numbers checked by hand."""

from functools import cache
from itertools import repeat

import keras
import numpy as np
import pytest
import tensorflow as tf

import vit_tf
from vit_core import InputError

CONFIG = vit_tf.ViTConfig(
    image_size=4,
    patch_size=2,
    num_channels=1,
    hidden_size=4,
    num_hidden_layers=0,
    num_attention_heads=2,
    intermediate_size=4,
    num_labels=3,
    initializer_range=1.0,
)
RANDOM = np.random.default_rng(3)
IMAGES, LABELS = RANDOM.standard_normal((6, 1, 4, 4), np.float32), np.array([0, 2, 1, 1, 0, 2])
HELD_OUT, HELD_OUT_LABELS = RANDOM.standard_normal((4, 1, 4, 4), np.float32), np.array([1, 1, 0, 2])
WEIGHTS = np.array([0.5, 1, 2, 0, 3, 0.25], np.float32)
CLASS_WEIGHT = {0: 2.0, 2: 0.5}  # 1 for the other one

LAYOUTS = {
    "(x, y)": lambda x, y: (x, y),
    "({pixel_values}, y)": lambda x, y: ({"pixel_values": x}, y),
    "({pixel_values}, {labels})": lambda x, y: ({"pixel_values": x}, {"labels": y}),
    "{pixel_values, labels}": lambda x, y: ({"pixel_values": x, "labels": y},),
    "({pixel_values, labels}, y)": lambda x, y: ({"pixel_values": x, "labels": y}, y),
}
USERS_LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
LOSSES = {"own": {}, "user's": {"loss": USERS_LOSS}}
METRICS = {
    "none": lambda: None,
    "accuracy": lambda: ["accuracy"],
    "object": lambda: [keras.metrics.SparseCategoricalAccuracy()],
    "list": lambda: ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top_2")],
}
MODES = {
    "plain": {},
    "validation_data": {},
    "class_weight": {"class_weight": CLASS_WEIGHT},
    "sample_weight": {"sample_weight": WEIGHTS},
}


def make_model(cls=vit_tf.TFViTForImageClassification, config=CONFIG, **options) -> keras.Model:
    """Always the same one, compiled. It does not learn: the numbers of an epoch are those of its weights."""
    keras.utils.set_random_seed(2)
    model = cls(config)
    model.compile(**{"optimizer": keras.optimizers.SGD(0.0), "run_eagerly": True, **options})
    return model


@pytest.fixture(scope="module")
def models():
    return {
        (loss, metrics): make_model(metrics=METRICS[metrics](), **LOSSES[loss])
        for loss in LOSSES
        for metrics in METRICS
    }


@cache
def logits_of(images: str) -> np.ndarray:
    return make_model()({"train": IMAGES, "val": HELD_OUT}[images]).logits.numpy().astype(np.float64)


def by_hand(mode: str = "plain", images: str = "train") -> dict[str, float]:
    """The loss and the metrics, of which only the loss takes weights."""
    labels, logits = {"train": LABELS, "val": HELD_OUT_LABELS}[images], logits_of(images)
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]
    weights = {"sample_weight": WEIGHTS, "class_weight": np.array([CLASS_WEIGHT.get(c, 1.0) for c in LABELS])}
    hits = (np.argsort(-logits, axis=1) == labels[:, None]).cumsum(1).mean(0)
    names = {"accuracy": hits[0], "sparse_categorical_accuracy": hits[0], "top_2": hits[1]}
    return {"loss": (losses * weights.get(mode, 1.0)).sum() / len(labels), **names}


EXPECTED_VAL = {f"val_{name}": value for name, value in by_hand(images="val").items()}


def check(got, expected):
    for name, value in got.items():
        np.testing.assert_allclose(np.squeeze(value), expected[name], rtol=1e-5, err_msg=name)


@pytest.mark.every_day("user's-list", "own-accuracy-sample_weight", "own-none-class_weight")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("metrics", METRICS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_trains_with_every_loss_metric_and_weight(models, layout, loss, metrics, mode):
    model, data, expected = models[loss, metrics], LAYOUTS[layout](IMAGES, LABELS), by_hand(mode)
    held_out = {"validation_data": LAYOUTS[layout](HELD_OUT, HELD_OUT_LABELS)} if mode == "validation_data" else {}
    got = model.fit(*data, batch_size=6, verbose=0, **MODES[mode], **held_out).history
    names = 1 + len(METRICS[metrics]() or ())
    assert len(got) == (2 * names if held_out else names)
    check(got, {**expected, **EXPECTED_VAL})
    if mode in ("plain", "sample_weight"):  # the others, `evaluate` does not have
        check(model.evaluate(*data, batch_size=6, verbose=0, return_dict=True, **MODES[mode]), expected)


@pytest.mark.every_day("[passthrough-(x, y)", "auto_with_warning {labels}")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("loss", ["passthrough", "auto_with_warning"])
def test_transformers_words_for_the_own_loss_are_understood(layout, loss):
    model, data = make_model(loss=loss, metrics=["accuracy"]), LAYOUTS[layout](IMAGES, LABELS)
    check(model.fit(*data, sample_weight=WEIGHTS, batch_size=6, verbose=0).history, by_hand("sample_weight"))


class Batches(keras.utils.PyDataset):
    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.batch


STEPS = {"steps_per_epoch": 1, "validation_steps": 1}
KINDS = {
    "data set": (lambda data: tf.data.Dataset.from_tensors(data if len(data) > 1 else data[0]), {}),
    "batches": (lambda data: Batches(data if len(data) > 1 else data[0]), {}),
    "generator": (lambda data: (each for each in repeat(data)), STEPS),
}


@pytest.mark.every_day("user's-data set", "[(x, y)")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_data_sets_have_every_layout_too(models, layout, loss, kind):
    make, steps = KINDS[kind]
    data, held_out = LAYOUTS[layout](IMAGES, LABELS), LAYOUTS[layout](HELD_OUT, HELD_OUT_LABELS)
    batches = {"plain": data}
    if len(data) > 1:  # else there is no place for weights
        batches["sample_weight"] = (*data, WEIGHTS)
    for mode, batch in batches.items():
        options = {"validation_data": make(held_out), "verbose": 0, "shuffle": False, **steps}
        check(models[loss, "accuracy"].fit(make(batch), **options).history, {**by_hand(mode), **EXPECTED_VAL})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_data_sets_take_class_weights(models, layout):
    def fit(model, labels):
        data = LAYOUTS[layout](IMAGES, labels)
        data = tf.data.Dataset.from_tensors(data if len(data) > 1 else data[0])
        return model.fit(data, class_weight=CLASS_WEIGHT, shuffle=False, verbose=0).history["loss"]

    check({"loss": fit(models["own", "accuracy"], LABELS)}, by_hand("class_weight"))
    crossentropy = make_model(loss=keras.losses.CategoricalCrossentropy(from_logits=True))
    check({"loss": fit(crossentropy, np.eye(3, dtype=np.float32)[LABELS])}, by_hand("class_weight"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_single_batches_have_every_layout(models, layout):
    model, data = models["own", "accuracy"], LAYOUTS[layout](IMAGES, LABELS)
    for mode in ("plain", "sample_weight", "class_weight"):
        check(model.train_on_batch(*data, return_dict=True, **MODES[mode]), by_hand(mode))
        if mode != "class_weight":
            check(model.test_on_batch(*data, return_dict=True, **MODES[mode]), by_hand(mode))


@pytest.mark.every_day("[(x, y)", "{labels}")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_compiled_training_has_the_same_numbers(layout):
    model, data = make_model(metrics=["accuracy"], run_eagerly=False), LAYOUTS[layout](IMAGES, LABELS)
    check(model.fit(*data, sample_weight=WEIGHTS, batch_size=6, verbose=0).history, by_hand("sample_weight"))


def test_the_own_loss_takes_labels_inside_x_and_metrics_take_y():
    model = make_model(metrics=["accuracy"])
    data = {"pixel_values": IMAGES, "labels": LABELS}, (LABELS + 1) % 3
    for mode in ("plain", "sample_weight"):
        got = model.fit(*data, batch_size=6, verbose=0, **MODES[mode]).history
        np.testing.assert_allclose(got["loss"], by_hand(mode)["loss"], rtol=1e-5)
        np.testing.assert_allclose(got["accuracy"], (logits_of("train").argmax(1) == data[1]).mean(), rtol=1e-6)


def test_losses_and_metrics_by_name_take_labels_from_everywhere():
    for layout in LAYOUTS.values():
        model = make_model(loss={"logits": USERS_LOSS}, metrics={"logits": ["accuracy"]})
        got = model.fit(*layout(IMAGES, LABELS), sample_weight=WEIGHTS, batch_size=6, verbose=0).history
        check(got, by_hand("sample_weight"))


KEPT = np.array([True, False, True, True, False, True])


def test_ignored_labels_count_neither_as_losses_nor_as_images():
    labels, logits = np.where(KEPT, LABELS, -100), logits_of("train")
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(6), LABELS]
    for weights in (None, np.ones(6), WEIGHTS):
        got = make_model().fit(IMAGES, labels, sample_weight=weights, batch_size=6, verbose=0).history["loss"]
        expected = (losses * (1.0 if weights is None else weights))[KEPT].sum() / 4
        np.testing.assert_allclose(got, expected, rtol=1e-5)


TARGETS = RANDOM.random((6, 3)).astype(np.float32)
PROBLEMS = {
    "regression": lambda logits: ((logits - TARGETS) ** 2).mean(1),
    "multi_label_classification": lambda logits: (np.log1p(np.exp(logits)) - logits * TARGETS).mean(1),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_weights_work_for_every_problem_type(problem):
    model = make_model(config=vit_tf.ViTConfig.from_dict({**CONFIG.to_dict(), "problem_type": problem}))
    got = model.fit(IMAGES, TARGETS, sample_weight=WEIGHTS, batch_size=6, verbose=0).history["loss"]
    np.testing.assert_allclose(got, (PROBLEMS[problem](logits_of("train")) * WEIGHTS).mean(), rtol=1e-5)


def test_weighted_training_moves_weights_as_repeated_images_do():
    twice, whole = make_model(optimizer=keras.optimizers.SGD(0.5)), make_model(optimizer=keras.optimizers.SGD(0.5))
    counts = np.array([2, 1, 0, 1, 1, 1])
    twice.fit(np.repeat(IMAGES, counts, axis=0), np.repeat(LABELS, counts), batch_size=6, verbose=0)
    whole.fit(IMAGES, LABELS, sample_weight=counts.astype(np.float32), batch_size=6, verbose=0)
    for name, array in twice.canonical_tensors().items():
        np.testing.assert_allclose(whole.canonical_tensors()[name], array, atol=1e-6, err_msg=name)


MASKED = vit_tf.ViTConfig.from_dict({**CONFIG.to_dict(), "encoder_stride": 2})
MAE = vit_tf.ViTMAEConfig(
    **{name: getattr(CONFIG, name) for name in ("image_size", "patch_size", "num_channels", "hidden_size")},
    num_hidden_layers=0,
    num_attention_heads=2,
    decoder_hidden_size=4,
    decoder_num_hidden_layers=0,
    decoder_num_attention_heads=2,
)
WITHOUT = {
    "mae": (vit_tf.TFViTMAEForPreTraining, MAE, (IMAGES,)),
    "mae in pairs": (vit_tf.TFViTMAEForPreTraining, MAE, (IMAGES, LABELS)),
    "masked": (
        vit_tf.TFViTForMaskedImageModeling,
        MASKED,
        ({"pixel_values": IMAGES, "bool_masked_pos": np.tile([[0, 1, 1, 0]], (6, 1))},),
    ),
}


@pytest.mark.parametrize("kind", WITHOUT)
def test_losses_over_all_masked_pixels_say_why_they_take_no_weights(kind):
    cls, config, data = WITHOUT[kind]
    model = make_model(cls, config)
    for weights in ({"sample_weight": WEIGHTS}, {"class_weight": CLASS_WEIGHT}):
        with pytest.raises(InputError, match="one mean over the masked pixels of all images"):
            model.fit(*data, verbose=0, **weights)
    with pytest.raises(InputError, match="one mean over the masked pixels"):
        model.evaluate(*data, verbose=0, sample_weight=WEIGHTS)
    with pytest.raises(InputError, match="one mean over the masked pixels"):
        model.fit(*data, verbose=0, validation_data=(data[0], None, WEIGHTS))
    assert np.isfinite(model.fit(*data, verbose=0).history["loss"]).all()


def test_weights_without_labels_are_never_passed_over():
    model = make_model()
    for call in (model.fit, model.evaluate, model.train_on_batch, model.test_on_batch):
        with pytest.raises(InputError, match="sample_weight: there are no labels"):
            call({"pixel_values": IMAGES}, sample_weight=WEIGHTS)
    for batch in ({"pixel_values": IMAGES, "labels": LABELS}, (IMAGES, {"labels": LABELS})):
        with pytest.raises(InputError, match=r"class_weight: expected batches \(x, y\)"):
            model.fit(Batches(batch), class_weight=CLASS_WEIGHT, verbose=0)
    with pytest.raises(InputError, match="weights already"):
        data = tf.data.Dataset.from_tensors((IMAGES, LABELS, WEIGHTS))
        model.fit(data, class_weight=CLASS_WEIGHT, shuffle=False, verbose=0)


FAILURES = {
    "no labels": {"x": IMAGES},
    "labels of another number": {"x": IMAGES, "y": LABELS[:5]},
    "images of another size": {"x": IMAGES[..., :3], "y": LABELS},
    "labels that are two": {"x": IMAGES, "y": (LABELS, LABELS)},
    "bad validation data": {"x": IMAGES, "y": LABELS, "validation_data": (IMAGES[..., :3], LABELS)},
    "other labels": {"x": IMAGES, "y": np.ones((6, 4), np.float32)},
}


@pytest.mark.every_day("user's-True", "bad validation data-own-False")
@pytest.mark.parametrize("run_eagerly", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_fit_leaves_the_model_as_it_was(failure, loss, run_eagerly):
    model = make_model(run_eagerly=run_eagerly, metrics=["accuracy"], **LOSSES[loss])
    for _ in range(2):
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
            model.fit(**FAILURES[failure], batch_size=6, verbose=0)
    held_out = (HELD_OUT, HELD_OUT_LABELS)
    got = model.fit(IMAGES, LABELS, batch_size=6, validation_data=held_out, verbose=0).history
    check(got, {**by_hand(), **EXPECTED_VAL})
