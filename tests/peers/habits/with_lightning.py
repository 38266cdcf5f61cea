"""A LightningModule around a model of vit_torch."""

import warnings

import lightning
import torch
from cases import Images, check_state, main, make_model
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from vit_torch import ViTConfig, ViTForImageClassification

warnings.filterwarnings("ignore")


class Classifier(lightning.LightningModule):
    def __init__(self, config: ViTConfig, learning_rate: float = 2e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = ViTForImageClassification(config)

    def training_step(self, batch, index):
        loss = self.model(**batch).loss
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.learning_rate)


def fit(folder, module, steps, **options):
    checkpoint = ModelCheckpoint(folder, monitor="loss", save_last=True, every_n_train_steps=4)
    trainer = lightning.Trainer(
        max_steps=steps,
        accelerator="cpu",
        callbacks=[checkpoint],
        logger=CSVLogger(folder),
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = torch.utils.data.DataLoader(Images(), batch_size=8)
    trainer.fit(module, data, **options)
    return checkpoint


def checkpoints_and_hyperparameters(folder):
    """The configuration is a hyperparameter; a checkpoint loads without naming it again, and goes on."""
    module = Classifier(make_model().config)
    checkpoint = fit(folder, module, 8)
    again = Classifier.load_from_checkpoint(checkpoint.last_model_path, weights_only=False)
    assert again.hparams.config == module.hparams.config == again.model.config
    check_state(again.state_dict(), module.state_dict())
    fit(folder / "more", again, 12, ckpt_path=checkpoint.last_model_path, weights_only=False)
    assert again.trainer.global_step == 12
    again.model.save_pretrained(folder / "saved")
    check_state(ViTForImageClassification.from_pretrained(folder / "saved").state_dict(), again.model.state_dict())


if __name__ == "__main__":
    main(globals())
