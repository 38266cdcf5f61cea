"""What a training recipe computes outside the model, in NumPy: the same bits for every framework."""

from vit_core.training.augmentation import Augmentation
from vit_core.training.batches import TrainingBatch
from vit_core.training.draws import Draws
from vit_core.training.groups import Group, depth_of, parameter_groups
from vit_core.training.mixing import mixed, soft_targets
from vit_core.training.recipe import Recipe, read_recipe
from vit_core.training.schedules import Schedule
from vit_core.training.steps import Optimisation, StepResult, TrainStep

__all__ = [
    "Augmentation",
    "Draws",
    "Group",
    "Optimisation",
    "Recipe",
    "Schedule",
    "StepResult",
    "TrainStep",
    "TrainingBatch",
    "depth_of",
    "mixed",
    "parameter_groups",
    "read_recipe",
    "soft_targets",
]
