"""Trainer of transformers over models of vit_torch."""

from pathlib import Path

import numpy as np
import torch
import transformers
from cases import CLASSIFIER, FIELDS, SIZES, Images, batch, check_state, main, make_model, make_processor

import vit_torch
from vit_core import MissingFileError
from vit_torch.training import ModelFolders


def make_trainer(folder: Path, name: str = CLASSIFIER, model=None, **settings) -> transformers.Trainer:
    given = {key: settings.pop(key) for key in ("callbacks", "processing_class", "compute_metrics") if key in settings}
    arguments = transformers.TrainingArguments(
        **{
            "output_dir": str(folder),
            "max_steps": 8,
            "save_steps": 4,
            "eval_steps": 4,
            "eval_strategy": "steps",
            "logging_steps": 1,
            "learning_rate": 2e-3,
            "per_device_train_batch_size": 8,
            "use_cpu": True,
            "report_to": [],
            "disable_tqdm": True,
            **settings,
        }
    )
    model = make_model(name) if model is None else model
    return transformers.Trainer(model, arguments, train_dataset=Images(name), eval_dataset=Images(name), **given)


def losses(trainer: transformers.Trainer) -> list[float]:
    return [
        entry.get("loss", entry.get("eval_loss"))
        for entry in trainer.state.log_history
        if {"loss", "eval_loss"} & {*entry}
    ]


def theirs(folder: Path, name: str) -> torch.nn.Module:
    """Transformers' own model with the weights of ours."""
    make_model(name).save_pretrained(folder / "start")
    return getattr(transformers, name).from_pretrained(folder / "start")


def check_same_run(folder: Path, name: str = CLASSIFIER, **settings) -> int:
    """Ours and theirs, trained the same way from the same weights, have the same losses."""
    ours = make_trainer(folder / "ours", name, **settings)
    other = make_trainer(folder / "theirs", name, theirs(folder, name), **settings)
    for trainer in (ours, other):
        trainer.train()
    found, expected = losses(ours), losses(other)
    assert len(found) == 10
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4)  # logged with four digits
    return len(found)


def same_losses(folder):
    return check_same_run(folder)


def label_smoothing(folder):
    return check_same_run(folder, label_smoothing_factor=0.2)


def masked_image_modeling(folder):
    return check_same_run(folder, "ViTForMaskedImageModeling", label_names=["bool_masked_pos"])


def masked_autoencoder(folder):
    return check_same_run(folder, "ViTMAEForPreTraining", label_names=["pixel_values"], remove_unused_columns=False)


def gradient_checkpointing(folder):
    keywords = {"use_reentrant": False}
    return check_same_run(folder, gradient_checkpointing=True, gradient_checkpointing_kwargs=keywords)


def fewer_layers_checkpointed(folder):
    """every_n_layers and offload, which transformers 5.24 hands on."""
    trainer = make_trainer(folder / "plain")
    trainer.train()
    names = ("activation_checkpointing", "activation_checkpointing_kwargs")
    values = (True, {"every_n_layers": 2, "offload": True})
    again = make_trainer(folder / "recomputed", **dict(zip(names, values, strict=True)))
    again.train()
    encoder = again.model.vit.encoder
    assert (encoder.recomputing.every_n_layers, encoder.recomputing.offload) == (2, True)
    np.testing.assert_allclose(losses(again), losses(trainer), rtol=1e-3)
    return losses(again)


def check_folder(folder: Path, model: torch.nn.Module) -> None:
    """It loads here and in transformers, weights, labels and processor."""
    ours = vit_torch.ViTForImageClassification.from_pretrained(folder)
    check_state(ours.state_dict(), model.state_dict())
    other = transformers.ViTForImageClassification.from_pretrained(folder)
    pixels = batch()["pixel_values"]
    with torch.no_grad():
        np.testing.assert_allclose(other(pixels).logits, model.eval()(pixels).logits, rtol=0, atol=1e-5)
    assert other.config.id2label == ours.config.id2label == model.config.id2label
    assert vit_torch.ViTImageProcessor.from_pretrained(folder).size == {"height": 16, "width": 16}


def whole_folders(folder):
    """One object as callback and as processing_class: whatever is saved is whole."""
    folders = ModelFolders(make_processor())
    trainer = make_trainer(folder / "out", callbacks=[folders], processing_class=folders)
    trainer.train()
    trainer.save_model()
    trainer.save_model(str(folder / "elsewhere"))
    for place in ("out", "out/checkpoint-8", "elsewhere"):
        check_folder(folder / place, trainer.model)
    vit_torch.ViTForImageClassification.from_pretrained(folder / "out" / "checkpoint-4")
    return sorted(path.name for path in (folder / "out").iterdir())


def the_callback_alone(folder):
    trainer = make_trainer(folder / "out", callbacks=[ModelFolders(make_processor())])
    trainer.train()
    trainer.save_model()
    for place in ("out", "out/checkpoint-8"):
        check_folder(folder / place, trainer.model)


def options_that_theirs_has_not(folder):
    """A folder of a model on the mean of its patches: their class does not load it without a word; ours goes on."""
    fields = {**SIZES, **FIELDS[CLASSIFIER], "use_mean_pooling": True, "norm_before_pooling": True}
    model = vit_torch.ViTForImageClassification(vit_torch.ViTConfig(**fields))
    folders = ModelFolders(make_processor())
    trainer = make_trainer(folder / "out", model=model, callbacks=[folders], processing_class=folders)
    trainer.train()
    trainer.save_model(str(folder / "elsewhere"))
    for place in ("out/checkpoint-8", "elsewhere"):
        ours = vit_torch.ViTForImageClassification.from_pretrained(folder / place)
        check_state(ours.state_dict(), trainer.model.state_dict())
        _, said = transformers.ViTForImageClassification.from_pretrained(folder / place, output_loading_info=True)
        assert [*said["unexpected_keys"]] == ["mean_pooling"], said
    again = make_trainer(folder / "out", model=vit_torch.ViTForImageClassification(model.config), callbacks=[folders])
    again.train(resume_from_checkpoint=str(folder / "out" / "checkpoint-4"))
    check_state(again.model.state_dict(), trainer.model.state_dict())


def a_bare_folder_explains_itself(folder):
    trainer = make_trainer(folder / "out")
    trainer.train()
    try:
        vit_torch.ViTForImageClassification.from_pretrained(folder / "out" / "checkpoint-8")
    except MissingFileError as error:
        return str(error)


def the_best_model(folder):
    """The first of two checkpoints is the best, by a measure that says so."""
    scores = iter((2.0, 1.0, 0.0))
    folders = ModelFolders(make_processor())
    trainer = make_trainer(
        folder / "out",
        callbacks=[folders],
        processing_class=folders,
        compute_metrics=lambda found: {"score": next(scores)},
        metric_for_best_model="score",
        greater_is_better=True,
        load_best_model_at_end=True,
        save_strategy="steps",
    )
    trainer.train()
    assert Path(trainer.state.best_model_checkpoint).name == "checkpoint-4"
    check_folder(folder / "out" / "checkpoint-4", trainer.model)


def resuming(folder):
    """A run that goes on from its middle ends with the weights of one that never stopped."""
    whole = make_trainer(folder / "out")
    whole.train()
    again = make_trainer(folder / "out")
    again.train(resume_from_checkpoint=str(folder / "out" / "checkpoint-4"))
    assert again.state.global_step == 8
    check_state(again.model.state_dict(), whole.model.state_dict())
    return losses(again) == losses(whole)


def prediction(folder):
    trainer = make_trainer(folder / "out")
    found = trainer.predict(Images(length=6))
    assert found.predictions.shape == (6, 3) and found.label_ids.tolist() == [0, 1, 2, 0, 1, 2]
    return found.metrics["test_loss"]


if __name__ == "__main__":
    main(globals())
