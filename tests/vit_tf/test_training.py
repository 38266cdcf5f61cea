"""Training through `fit`: on real digits, by every form of the labels, continued, frozen, mixed, mirrored."""

import re
import subprocess
import sys
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits
from tf_models import make_config

import vit_tf
from vit_core import InputError

# Keras reads its variables in a way that NumPy 2 deprecates, whenever it saves them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

CLASSIFIER, MASKED, MAE = "TFViTForImageClassification", "TFViTForMaskedImageModeling", "TFViTMAEForPreTraining"
DIGITS = {
    "num_hidden_layers": 1,
    "image_size": 8,
    "patch_size": 4,
    "encoder_stride": 4,
    "num_channels": 1,
    "num_labels": 10,
}
IMAGES = (load_digits().images[:1280, None] / 8 - 1).astype(np.float32)
CLASSES = load_digits().target[:1280]
ONE_HOT = np.eye(10, dtype=np.float32)[CLASSES]
MASKS = np.random.default_rng(4).random((1280, 4)) < 0.5
FEW = slice(0, 64)  # where it does not matter how well it learns
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def fresh(name: str, dtype: object = None, add_pooling_layer: bool = True, **options) -> keras.Model:
    """A compiled model of digits, the same one each time."""
    keras.utils.set_random_seed(1)
    pooler = {} if add_pooling_layer else {"add_pooling_layer": False}
    model = getattr(vit_tf, name)(make_config(name, **DIGITS), dtype=dtype, **pooler)
    model.compile(keras.optimizers.AdamW(5e-3), **options)
    return model


def fit(model: keras.Model, *data, epochs: int = 2, **options) -> list[float]:
    """The loss of each epoch."""
    return model.fit(*data, epochs=epochs, batch_size=16, shuffle=False, verbose=0, **options).history["loss"]


def check_same_weights(got: keras.Model, expected: keras.Model, tolerance: float = 0.0):
    arrays = got.canonical_tensors()
    for name, array in expected.canonical_tensors().items():
        np.testing.assert_allclose(arrays[name], array, rtol=0, atol=tolerance, err_msg=name)


XLA, NO_XLA = {"jit_compile": True}, {"jit_compile": False}
TRAININGS = {
    "own loss, compiled": (CLASSIFIER, NO_XLA, (IMAGES, CLASSES)),
    "own loss, by xla": (CLASSIFIER, XLA, (IMAGES, CLASSES)),
    "own loss, several classes": (CLASSIFIER, {}, (IMAGES, ONE_HOT)),
    "the user's loss": (CLASSIFIER, {"loss": CROSS_ENTROPY, "metrics": ["accuracy"]}, (IMAGES, CLASSES)),
    "bfloat16": (CLASSIFIER, {"dtype": "mixed_bfloat16", **NO_XLA}, (IMAGES, CLASSES)),
    "bfloat16 by xla": (CLASSIFIER, {"dtype": "mixed_bfloat16", **XLA}, (IMAGES, CLASSES)),
    "float16": (CLASSIFIER, {"dtype": "mixed_float16", **NO_XLA}, (IMAGES, CLASSES)),
    "[float16 by xla": (CLASSIFIER, {"dtype": "mixed_float16", **XLA}, (IMAGES, CLASSES)),
    "features": ("TFViTModel", {"loss": "mse", "add_pooling_layer": False}, (IMAGES, np.zeros((1280, 1, 1)))),
    "masks": (MASKED, NO_XLA, ({"pixel_values": IMAGES, "bool_masked_pos": MASKS},)),
    "masks by xla": (MASKED, XLA, ({"pixel_values": IMAGES, "bool_masked_pos": MASKS},)),
    "bare images": (MAE, NO_XLA, (IMAGES,)),
    "bare images by xla": (MAE, XLA, (IMAGES,)),
    "bare images, float16": (MAE, {"dtype": "mixed_float16"}, (IMAGES,)),
}


@pytest.mark.every_day("[float16 by xla", "[bare images]", "features")
@pytest.mark.parametrize("training", TRAININGS)
def test_the_loss_on_digits_falls_in_two_epochs(training):
    name, options, data = TRAININGS[training]
    model = fresh(name, **options)
    first, second = fit(model, *data)
    assert second < 0.95 * first
    got = model.evaluate(*data, batch_size=128, verbose=0, return_dict=True)
    assert got["loss"] < first


IN_PAIRS = tf.data.Dataset.from_tensor_slices((IMAGES[FEW], CLASSES[FEW])).batch(16)
LABELS = {
    "in x": ({"pixel_values": IMAGES[FEW], "labels": CLASSES[FEW]},),
    "in x, of a data set": (IN_PAIRS.map(lambda x, y: {"pixel_values": x, "labels": y}),),
    "in a list": ([IMAGES[FEW]], CLASSES[FEW]),
    "in pairs of a data set": (IN_PAIRS,),
    "in a tuple": (IMAGES[FEW], (CLASSES[FEW],)),
    "by the argument": (IMAGES[FEW], {"labels": CLASSES[FEW]}),
    "by the output": (IMAGES[FEW], {"logits": CLASSES[FEW]}),
    "as int32": ({"pixel_values": IMAGES[FEW]}, CLASSES[FEW].astype(np.int32)),
}


@pytest.mark.every_day("in a tuple")
@pytest.mark.parametrize("form", LABELS)
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")
def test_labels_in_every_form_give_the_same_losses(form):
    expected, got = fresh(CLASSIFIER, run_eagerly=True), fresh(CLASSIFIER, run_eagerly=True)
    losses = fit(expected, IMAGES[FEW], CLASSES[FEW], epochs=1)
    data = LABELS[form]
    batch = None if isinstance(data[0], tf.data.Dataset) else 16
    assert got.fit(*data, batch_size=batch, shuffle=False, verbose=0).history["loss"] == losses
    check_same_weights(got, expected)


@pytest.mark.long
def test_losses_and_metrics_go_by_the_names_of_outputs():
    expected = fit(fresh(CLASSIFIER, loss=CROSS_ENTROPY), IMAGES[FEW], CLASSES[FEW])
    labels = {"logits": CLASSES[FEW]}
    named = fresh(CLASSIFIER, loss={"logits": CROSS_ENTROPY}, metrics={"logits": ["accuracy"]})
    assert fit(named, IMAGES[FEW], labels) == expected
    assert set(named.evaluate(IMAGES[FEW], labels, return_dict=True, verbose=0)) == {"accuracy", "loss"}
    with pytest.raises(KeyError, match="'logit'"):
        fit(fresh(CLASSIFIER, loss={"logit": CROSS_ENTROPY}), IMAGES[FEW], {"logit": CLASSES[FEW]})


def test_a_loss_that_cannot_be_computed_is_an_error():
    for name, data in ((CLASSIFIER, (IMAGES,)), (MASKED, (IMAGES,)), ("TFViTModel", (IMAGES, CLASSES))):
        with pytest.raises(InputError, match="no loss"):
            fit(fresh(name), *data)
    with pytest.raises(InputError, match="no loss"):
        fit(fresh(CLASSIFIER), IMAGES, (CLASSES, CLASSES))


def test_a_step_is_traced_once(monkeypatch):
    traced, loss_of = [], vit_tf.TFViTForImageClassification.compute_loss
    monkeypatch.setattr(
        vit_tf.TFViTForImageClassification,
        "compute_loss",
        lambda *args, **kwargs: traced.append(1) or loss_of(*args, **kwargs),
    )
    fit(fresh(CLASSIFIER), IMAGES[FEW], CLASSES[FEW])
    assert len(traced) == 1


KINDS = ("MatMul", "Softmax", "Rsqrt")  # of operations; the norms take a root


@pytest.mark.every_day("Classification-eager-mixed_float16", "Masked sdpa-mixed_bfloat16", "MAE eager-mixed_bfloat16")
@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", [CLASSIFIER, MASKED, MAE])
def test_norms_softmax_and_heads_are_computed_in_float32(name, implementation, dtype):
    model = fresh(name, dtype)
    model.set_attn_implementation(implementation)
    graph = tf.function(model).get_concrete_function(tf.TensorSpec((None, 1, 8, 8))).graph
    kinds = {kind: {op.inputs[0].dtype for op in graph.get_operations() if op.type == kind} for kind in KINDS}
    assert kinds.pop("MatMul") >= {tf.as_dtype(dtype.removeprefix("mixed_"))}
    assert all(dtypes == {tf.float32} for dtypes in kinds.values()), kinds
    output = model(IMAGES[:2])
    assert output["reconstruction" if name == MASKED else "logits"].dtype == tf.float32
    assert {weight.dtype for weight in model.weights} == {"float32"}


STATES = {  # in graphs one of each kind of state that is not the weights'
    "float32": (CLASSIFIER, {"run_eagerly": True}),
    "float16": (CLASSIFIER, {"dtype": "mixed_float16"}),  # the optimizer has a scale of losses as well
    "noise": (MAE, {}),
    "no pooler": ("TFViTModel", {"loss": "mse", "add_pooling_layer": False, "run_eagerly": True}),
}


@pytest.mark.every_day("[float32]")
@pytest.mark.parametrize("state", STATES)
def test_training_goes_on_where_it_was_saved_to_the_bit(state, tmp_path):
    name, options = STATES[state]
    targets = {CLASSIFIER: (CLASSES[FEW],), MAE: (), "TFViTModel": (np.zeros((64, 1, 1), np.float32),)}
    data = (IMAGES[FEW], *targets[name])
    model = fresh(name, **options)
    fit(model, *data, epochs=1)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    losses = []
    for trained in (model, loaded):
        keras.utils.set_random_seed(2)  # of the noise of a masked autoencoder
        trained.make_train_function(force=True)  # the one there is has the old seed
        losses.append(fit(trained, *data, epochs=1))
    assert losses[0] == losses[1]
    assert int(loaded.optimizer.iterations) == 8
    check_same_weights(loaded, model)


def test_the_best_epoch_is_kept_in_both_formats(tmp_path):
    model = fresh(CLASSIFIER)
    callbacks = [
        keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor="loss", save_best_only=True),
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True),
    ]
    fit(model, IMAGES[FEW], CLASSES[FEW], callbacks=callbacks)
    again = vit_tf.TFViTForImageClassification(model.config)
    again.load_weights(tmp_path / "2.weights.h5")
    for loaded in (again, keras.saving.load_model(tmp_path / "best.keras")):
        check_same_weights(loaded, model)
    assert (tmp_path / "1.weights.h5").exists()


class Interrupt(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise InterruptedError


@pytest.mark.long
def test_an_interrupted_training_ends_as_if_it_had_not_been(tmp_path):
    data, models = (IMAGES[FEW], CLASSES[FEW]), [fresh(CLASSIFIER, run_eagerly=True) for _ in range(3)]
    fit(models[0], *data)
    with pytest.raises(InterruptedError):
        fit(models[1], *data, callbacks=[keras.callbacks.BackupAndRestore(tmp_path / "backup"), Interrupt()])
    losses = fit(models[2], *data, callbacks=[keras.callbacks.BackupAndRestore(tmp_path / "backup")])
    assert len(losses) == 1  # the second epoch
    check_same_weights(models[2], models[0])


def freeze_encoder(model):
    model.vit.trainable = False


def freeze_parts(model):
    model.vit.embeddings.trainable = model.vit.encoder.layer[0].trainable = False


def freeze_all_but_the_last_norm(model):
    freeze_encoder(model)
    model.vit.layernorm.trainable = True


FROZEN = {
    freeze_encoder: ("vit.",),
    freeze_parts: ("vit.embeddings.", "vit.encoder.layer.0."),
    freeze_all_but_the_last_norm: ("vit.e",),
}


@pytest.mark.every_day("freeze_parts")
@pytest.mark.parametrize("freeze", FROZEN)
def test_frozen_layers_stay_as_they_are_also_once_saved(freeze, tmp_path):
    model = fresh(CLASSIFIER)
    freeze(model)
    model.compile(keras.optimizers.AdamW(5e-3))
    trained = model
    for path in ("one.keras", "two.keras"):
        before = trained.canonical_tensors()
        fit(trained, IMAGES[FEW], CLASSES[FEW], epochs=1)
        after = trained.canonical_tensors()
        same = {name for name, array in before.items() if (array == after[name]).all()}
        assert same == {name for name in before if name.startswith(FROZEN[freeze])}
        trained.save(tmp_path / path)
        trained = keras.saving.load_model(tmp_path / path)  # with the optimizer's state: no warning
    for thawed in (model, trained):
        thawed.vit.trainable = False
        thawed.vit.trainable = True  # Keras passes on what changes
        assert len(thawed.trainable_weights) == len(model.weights)


ON_TWO_DEVICES = """if True:
    import sys, keras, numpy, tensorflow as tf, vit_tf
    cpu, one = tf.config.list_physical_devices("CPU")[0], tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(cpu, [one, one])
    images, classes = numpy.load(sys.argv[1] + "/images.npy"), numpy.load(sys.argv[1] + "/classes.npy")
    sizes = {"image_size": 8, "patch_size": 4, "num_channels": 1, "hidden_size": 24, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 3, "intermediate_size": 36, "num_labels": 10}
    decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}

    def train(strategy):
        keras.utils.set_random_seed(1)
        with strategy.scope():
            model = vit_tf.TFViTForImageClassification(vit_tf.ViTConfig(**sizes))
            model.compile(keras.optimizers.SGD(0.1))
        history = model.fit(images, classes, batch_size=16, epochs=2, shuffle=False, verbose=0).history["loss"]
        return model, [*history, model.evaluate(images, classes, verbose=0)]

    mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert mirrored.num_replicas_in_sync == 2
    (two, losses), (one, expected) = train(mirrored), train(tf.distribute.get_strategy())
    numpy.testing.assert_allclose(losses, expected, rtol=1e-5)
    numpy.testing.assert_allclose(two.predict(images, verbose=0).logits, one(images).logits, atol=1e-3)
    for name, array in one.canonical_tensors().items():
        numpy.testing.assert_allclose(two.canonical_tensors()[name], array, atol=1e-5, err_msg=name)

    with mirrored.scope():
        config = vit_tf.ViTMAEConfig(**sizes, **decoder, decoder_intermediate_size=20, hidden_dropout_prob=0.1)
        painter = vit_tf.TFViTMAEForPreTraining(config)
        painter.compile(keras.optimizers.AdamW(5e-3))
    first, second = painter.fit(images, batch_size=16, epochs=2, verbose=0).history["loss"]
    assert second < first
"""


@pytest.mark.long
def test_two_mirrored_devices_train_like_one(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES[:256])
    np.save(tmp_path / "classes.npy", CLASSES[:256])
    run = subprocess.run([sys.executable, "-c", ON_TWO_DEVICES, tmp_path], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]


LACKING = {
    CLASSIFIER: "expected one array of labels beside the images.\nWrite fit(images, labels) or fit({",
    MASKED: 'among the inputs.\nWrite fit({"pixel_values": images, "bool_masked_pos": mask});',
    "TFViTModel": "an encoder has none of its own.\nGive one to compile(), and targets as y.",
    "TFViTMAEModel": "an encoder has none of its own.\nGive one to compile(), and targets as y.",
}


@pytest.mark.parametrize("name", LACKING)
def test_images_alone_are_refused_with_what_to_write(name):
    model, images = fresh(name, run_eagerly=True), IMAGES[:4]
    for data in (images, {"pixel_values": images}, tf.data.Dataset.from_tensor_slices(images).batch(16)):
        for verb in (partial(model.fit, shuffle=False), model.evaluate):
            with pytest.raises(InputError, match=re.escape(LACKING[name])) as caught:
                verb(data, verbose=0)
            assert len(str(caught.value).splitlines()) <= 3
