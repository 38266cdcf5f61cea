"""What ports from transformers' TensorFlow classes write besides: data sets of rows, base classes, constructors."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tf_models import make_config, make_inputs, make_model

import vit_tf
from vit_core import InputError

CLASSIFIER = "TFViTForImageClassification"
IMAGES, CLASSES = make_inputs(CLASSIFIER, batch=5)["pixel_values"], [3, 0, 1, 4, 2]


class Rows:
    """What a data set of the hub looks like from outside: rows by number, arrays as lists, other columns too."""

    def __init__(self, label: str | None = "label", transform=lambda row: row):
        self.label, self.transform = label, transform

    def __len__(self):
        return 5

    def __getitem__(self, number):
        row = {"pixel_values": IMAGES[number].tolist(), "file": f"{number}.png"}
        return self.transform(row if self.label is None else {**row, self.label: CLASSES[number]})


@pytest.mark.parametrize("label", ["label", "labels", "label_ids"])
def test_rows_become_batches_that_models_train_on(label):
    model = make_model(CLASSIFIER)
    batches = model.prepare_tf_dataset(Rows(label), batch_size=2, shuffle=False)
    assert len(batches) == 3
    assert [spec.shape.as_list() for spec in batches.element_spec] == [[None, 3, 12, 20], [None]]
    x, y = (np.concatenate(parts) for parts in zip(*batches.as_numpy_iterator(), strict=True))
    np.testing.assert_array_equal(x, IMAGES)
    np.testing.assert_array_equal(y, CLASSES)
    model.compile(keras.optimizers.SGD(0.0), metrics=["accuracy"], run_eagerly=True)
    got = model.fit(batches, verbose=0, shuffle=False).history["loss"]
    expected = model.evaluate(IMAGES, np.array(CLASSES), batch_size=2, verbose=0, return_dict=True)["loss"]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_shuffled_rows_come_in_another_order_each_epoch_and_all_of_them():
    keras.utils.set_random_seed(5)
    batches = make_model(CLASSIFIER).prepare_tf_dataset(Rows(), batch_size=1)
    orders = [[int(y[0]) for _, y in batches] for _ in range(4)]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    whole = make_model(CLASSIFIER).prepare_tf_dataset(Rows(), batch_size=2)
    assert [len(y) for _, y in whole] == [2, 2]  # as in transformers, unless drop_remainder=False
    rest = make_model(CLASSIFIER).prepare_tf_dataset(Rows(), batch_size=2, drop_remainder=False, prefetch=False)
    assert [len(y) for _, y in rest] == [2, 2, 1]


def test_models_get_the_columns_they_take():
    images = make_model("TFViTMAEForPreTraining").prepare_tf_dataset(Rows(), batch_size=5, shuffle=False)
    np.testing.assert_array_equal(next(iter(images)), IMAGES)

    def with_mask(rows, patches):
        pixels = np.stack([np.asarray(row["pixel_values"]) for row in rows])
        return {"pixel_values": pixels, "bool_masked_pos": np.ones((len(rows), patches), bool)}

    masked = make_model("TFViTForMaskedImageModeling")
    options = {"collate_fn": with_mask, "collate_fn_args": {"patches": 15}}
    batch = next(iter(masked.prepare_tf_dataset(Rows(None), batch_size=5, shuffle=False, **options)))
    assert {name: value.shape for name, value in batch.items()} == {
        "pixel_values": (5, 3, 12, 20),
        "bool_masked_pos": (5, 15),
    }


def test_rows_without_images_are_named():
    model = make_model(CLASSIFIER)
    with pytest.raises(InputError, match=r"expected a column pixel_values, got image, label[^\n]*\n[^\n]*processor"):
        model.prepare_tf_dataset(Rows(transform=lambda row: {"image": "x", "label": row["label"]}))
    for dataset in ((row for row in Rows()), []):
        with pytest.raises(InputError, match="expected rows with a number each"):
            model.prepare_tf_dataset(dataset)
    with pytest.raises(InputError, match="images have none"):
        model.prepare_tf_dataset(Rows(), tokenizer=object())


def test_base_classes_tell_models_apart():
    bases = vit_tf.TFViTPreTrainedModel, vit_tf.TFViTMAEPreTrainedModel
    for name, expected in {CLASSIFIER: [True, False], "TFViTMAEModel": [True, True]}.items():
        assert [isinstance(make_model(name), base) for base in bases] == expected
    assert vit_tf.TFViTMAEPreTrainedModel.config_class is vit_tf.ViTMAEConfig


def test_more_than_a_configuration_is_never_taken_for_an_option(name):
    for extra in (False, {"add_pooling_layer": False}, tf.zeros((1, 3, 12, 20))):
        with pytest.raises(TypeError, match="positional argument"):
            getattr(vit_tf, name)(make_config(name), extra)
    with pytest.raises(TypeError, match="positional argument"):
        vit_tf.TFViTPreTrainedModel(make_config(name), {"add_pooling_layer": False})


def test_the_loss_of_each_image_comes_from_keras_and_nothing_generates():
    model = make_model(CLASSIFIER)
    output = model(IMAGES, labels=np.array(CLASSES))
    each = keras.losses.sparse_categorical_crossentropy(np.array(CLASSES), output.logits, from_logits=True)
    assert each.shape == (5,)
    np.testing.assert_allclose(np.mean(each), output.loss, rtol=1e-6)
    assert not type(model).can_generate()
