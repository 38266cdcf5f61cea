"""What a dialect is: everything known of one family of programs that write the weights of a ViT or a ViTMAE.

`conversion.dialects` has one module per family and the list of them. The rest of this package treats all alike.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from vit_core.files.arrays import LazyArray
from vit_core.files.folders import Weights
from vit_core.limits import Limits

if TYPE_CHECKING:
    from vit_core.images.processor import ViTImageProcessor

Fields = dict[str, Any]  # of a configuration, or options of an image processor
Tensors = dict[str, LazyArray]
Images = tuple[Fields | None, str]  # options of a processor and where they are from; or None and why


class Part(NamedTuple):
    """One third of a tensor in which query, key and value follow one another on the first axis."""

    name: str
    third: int


Row = Sequence[str | Part]  # every template that a dialect has for one parameter, the one it writes first


class Opened(Protocol):
    """What a dialect may look at to find out how images are prepared: an opened checkpoint."""

    @property
    def weights(self) -> Weights:
        """Its tensors, as stored."""

    @property
    def config(self) -> dict[str, Any] | None:
        """The object in config.json, or None where there is none."""

    @property
    def beside(self) -> Callable[[str], Path | None]:
        """The path of another file of the checkpoint, by name; None where there is none."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Target:
    """How a dialect is written.

    Attributes:
        classes: those that its programs have.
        container: one of `conversion.writing.WRITERS`.
        suffix: of the weight file.
        file: its name in a folder; None where a checkpoint is one file, of the caller's name.
        prefix: what stands in front of the encoder's names in models with a head.
        lacks: start of a canonical name -> what the dialect does not have.
        options: of the family's, see `PretrainedConfig.family_options`, those that its programs have too.
        needs_qkv_bias: whether it cannot say that queries, keys and values have no biases.
        activations: ours -> what its config.json calls it; None where it says none, or all as we do.
        scopes: model class -> the group that its weights are in; of HDF5 files.
        unfold: makes what its programs have of tensors by canonical names without prefix, in place; from the
            configuration and those.
        config: the fields of its config.json, from the configuration, the name of the class and the image processor;
            None where it has the one of transformers.
    """

    classes: tuple[str, ...]
    container: str
    suffix: str
    file: str | None = None
    prefix: str = ""
    lacks: Mapping[str, str] = field(default_factory=dict)
    options: Collection[str] = ()
    needs_qkv_bias: bool = False
    activations: Mapping[str, str] | None = None
    scopes: Mapping[str, str] = field(default_factory=dict)
    unfold: Callable[[Any, Tensors], None] | None = None
    config: Callable[[Any, str, ViTImageProcessor | None], Fields] | None = None


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Dialect:
    """How one family of programs names, lays out and describes what a model holds.

    A family can have several dialects of one name, which differ in a few rows. The functions take the name of the
    checkpoint for messages first, and raise CheckpointError for what no model here computes.

    Attributes:
        name: what it is called here.
        convention: its layout, see `conversion.layouts`.
        rows: template of a canonical name -> the names that the dialect has for it. {i} is the number of a layer, {c}
            that of a chunk of layers.
        is_canonical: whether its names are the canonical ones, "vit." in front of an encoder with a head included.
        encoder_prefix: what may stand in front of the encoder's names, but not of a head's.
        prefix: what stands in front of every name in a file at hand; of a dialect as such, nothing.
        stacked: what stands in the names of tensors that hold all layers on a leading axis -> the same for one layer.
        folded: as `rows`, for tensors that `folds` work into canonical ones.
        folds: what makes canonical tensors of those, one step after the other. A step takes the tensors by canonical
            names without prefix, changes that dictionary, and returns what it did, a line each; its last argument names
            the steps that may change outputs (`conversion.folds.LOSSY`).
        settle: gives tensors that its files only number the names that the configuration tells, in place; they are by
            canonical names, with the prefix where there is a head.
        dropped: start of a name -> why the tensor means nothing to a model.
        marks: words of a name -> what that no ViT here has; see `conversion.marks`.
        framework: "pt", "tf" or "flax" where classes of transformers write it: `from_pt=True` and alike ask for it.
        layout_name: what its safetensors files call their layout under "format"; None where names alone decide.
        numerics: fields of the configuration that its programs share; None where a config.json says all.
        has_class_row: whether its position tables always have a row for the class token.
        config_key: the key by which its config.json is known.
        read_config: the fields of ours that such a file says.
        read_labels: the key of its labels and what stands there; None where it has none.
        published: (start, end) of the name under which a file was published -> what nothing in the file says.
        refuse: raises for sizes of models that compute in a way of their own.
        read_images: how images are prepared, from what stands beside the weights or from the weights themselves, the
            configuration of the model, and bounds on JSON files. Nothing and "" where nothing tells.
        processors: image processors of transformers that it has, other than ViT's and DeiT's; `read_images` reads them.
        target: how it is written; None where it is only read.
    """

    name: str
    convention: str
    rows: Mapping[str, Row]
    is_canonical: bool = False
    encoder_prefix: str = ""
    prefix: str = ""
    stacked: Mapping[str, str] = field(default_factory=dict)
    folded: Mapping[str, Row] = field(default_factory=dict)
    folds: tuple[Callable[[str, Tensors, Collection[str]], list[str]], ...] = ()
    settle: Callable[[Any, Tensors], None] | None = None
    dropped: Mapping[str, str] = field(default_factory=dict)
    marks: Mapping[str, str] = field(default_factory=dict)
    framework: str | None = None
    layout_name: str | None = None
    numerics: Mapping[str, Any] | None = None
    has_class_row: bool = False
    config_key: str | None = None
    read_config: Callable[[str, Mapping[str, Any]], Fields] | None = None
    read_labels: Callable[[Mapping[str, Any]], tuple[str, Any] | None] | None = None
    published: Mapping[tuple[str, str], Fields] = field(default_factory=dict)
    refuse: Callable[[str, Fields], None] | None = None
    read_images: Callable[[Opened, Any, Limits], Images] | None = None
    processors: Collection[str] = ()
    target: Target | None = None
