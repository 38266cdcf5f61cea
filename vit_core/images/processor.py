"""The image processor: pictures in, the numbers that a ViT model expects out.

    vit_core.open_image -> ViTImageProcessor: resize -> crop -> rescale -> normalize -> BatchFeature

Numerics and `preprocessor_config.json` are those of transformers 4.57.6's Pillow and NumPy processor, bit for bit and
byte for byte; each departure is marked `Differs:`. `options` checks options, `stored` reads their
files, `pictures` reads images, `steps` has the steps and `batches` their loop; here are the classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, Unpack, overload

from PIL import Image

from vit_core.errors import ImageError
from vit_core.files.atomic_folder import write_file
from vit_core.files.json import check_text, json_text
from vit_core.files.weight_files import is_weights
from vit_core.hub.upload import PushToHub
from vit_core.images import steps
from vit_core.images.batch_feature import BatchFeature
from vit_core.images.batches import Batch, apply, threads
from vit_core.images.options import CHECKS, OPTIONS, RARE_OPTIONS, PerChannel, Size, height_width, layout, size
from vit_core.images.stored import DEIT_DEFAULTS, DEIT_NAMES, PREPROCESSOR_NAME, checked_extra, read_options
from vit_core.keywords import PreprocessKeywords, ProcessorKeywords, check_preprocessing
from vit_core.limits import LIMITS, Limits
from vit_core.tensors import Array


class ViTImageProcessor(PushToHub):
    """Turns images into `pixel_values`: resize, then rescale, then normalize, each of which can be switched off.

    Args:
        do_resize: stretch to `size`; the aspect ratio is not kept.
        size: pixels: s for a square, (height, width), or {"height": h, "width": w}; 224 where None. The keys
            shortest_edge, longest_edge, max_height, max_width are stored but cannot be resized to.
        resample: Pillow filter: 0 nearest, 1 lanczos, 2 bilinear, 3 bicubic, 4 box, 5 hamming.
        do_rescale: multiply by `rescale_factor`.
        rescale_factor: 1/255 takes 0..255 to 0..1.
        do_normalize: subtract `image_mean`, divide by `image_std`.
        image_mean: one number, or one per channel; 0.5 for each of three where None.
        image_std: likewise.
        do_convert_rgb: where None, PIL images become RGB, or gray for a processor with one mean and one deviation;
            arrays of (height, width) become three equal channels, arrays of four lose the fourth, where three means
            ask for that. True makes every PIL image RGB; False takes all as they are.
        **kwargs: these rarer options, off while unset and only then left out of JSON; anything else is kept in the
            dict `extra`, readable as attributes, without effect, written back to JSON.

            do_center_crop, crop_size (224): cut out the middle after resizing, as DeiT does;
            do_exif_transpose: turn PIL images as their EXIF orientation says;
            alpha_background: (red, green, blue) in 0..255 to put transparent images on; alpha is dropped without it;
            compatible: resize floats as the reference does, cut to 8 bits, and four channels weighted by the fourth.

    Raises:
        ImageError: an option is invalid, or asks for a step that does not exist here (such as do_pad=True).
    """

    model_input_names: ClassVar[list[str]] = ["pixel_values"]
    is_fast: ClassVar[bool] = False

    do_resize: bool
    size: dict[str, int]
    resample: int
    do_rescale: bool
    rescale_factor: float
    do_normalize: bool
    image_mean: float | list[float]
    image_std: float | list[float]
    do_convert_rgb: bool | None
    do_center_crop: bool | None
    crop_size: dict[str, int] | None
    do_exif_transpose: bool | None
    alpha_background: list[int] | None
    compatible: bool | None

    def __init__(
        self,
        /,  # a file may have a key "self"
        do_resize: bool = True,
        size: Size | None = None,
        resample: int = Image.Resampling.BILINEAR,
        do_rescale: bool = True,
        rescale_factor: float = 1 / 255,
        do_normalize: bool = True,
        image_mean: PerChannel | None = None,
        image_std: PerChannel | None = None,
        do_convert_rgb: bool | None = None,
        **kwargs: Any,
    ) -> None:
        options = {
            "do_resize": do_resize,
            "size": 224 if size is None else size,
            "resample": resample,
            "do_rescale": do_rescale,
            "rescale_factor": rescale_factor,
            "do_normalize": do_normalize,
            "image_mean": [0.5, 0.5, 0.5] if image_mean is None else image_mean,
            "image_std": [0.5, 0.5, 0.5] if image_std is None else image_std,
            "do_convert_rgb": do_convert_rgb,
        }
        self.extra: dict[str, Any] = {}
        for name, value in {**options, **kwargs}.items():
            if name in CHECKS:
                setattr(self, name, value)
        self.extra.update(checked_extra({name: value for name, value in kwargs.items() if name not in CHECKS}))

    def __setattr__(self, name: str, value: Any) -> None:  # options are checked whenever they are set
        if name in CHECKS:
            value = CHECKS[name](name, value)
        if name in RARE_OPTIONS or name in vars(self).get("extra", {}):
            self.extra[name] = value
        else:
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:  # only asked for names that are nowhere else: extra keys shadow nothing
        extra = vars(self).get("extra", {})
        if name in extra:
            return extra[name]
        if name in RARE_OPTIONS:
            return None
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __call__(self, images: Any, **kwargs: Unpack[PreprocessKeywords]) -> BatchFeature:
        """Pixel values of one image or many; `preprocess` says what it takes.

        Example:
            inputs = processor(image, return_tensors="pt")
            outputs = model(**inputs)

        Args:
            images: a PIL image, an array or tensor of one image or a batch, or a list or generator of these.
            **kwargs: `vit_core.keywords.PreprocessKeywords`, as for `preprocess`: return_tensors, data_format,
                input_data_format, num_threads, device, limits, and options that override the processor's own for this
                call. Other familiar keywords pass where they change nothing (`vit_core.keywords.PREPROCESSING`).
        """
        return self.preprocess(images, **kwargs)

    def preprocess(
        self,
        images: Any,
        do_resize: bool | None = None,
        size: Size | None = None,
        resample: int | None = None,
        do_rescale: bool | None = None,
        rescale_factor: float | None = None,
        do_normalize: bool | None = None,
        image_mean: PerChannel | None = None,
        image_std: PerChannel | None = None,
        return_tensors: object = None,
        data_format: object = "channels_first",
        input_data_format: object = None,
        do_convert_rgb: bool | None = None,
        *,
        do_center_crop: bool | None = None,
        crop_size: Size | None = None,
        do_exif_transpose: bool | None = None,
        alpha_background: tuple[int, int, int] | list[int] | None = None,
        compatible: bool | None = None,
        num_threads: int | None = None,
        device: object = None,
        limits: Limits = LIMITS,
        **kwargs: Any,
    ) -> BatchFeature:
        """Pixel values of one image or many.

        Args:
            images: a PIL image, an array or tensor of one image or a batch, or a list or generator of these (nested or
                mixed). What a generator yields is worked on at once, before the next is drawn. Numbers are 0..255;
                for 0..1 pass do_rescale=False.
            return_tensors: "np", "pt", "tf" or "jax"; a list of NumPy arrays where None.
            data_format: layout of the result: "channels_first", "channels_last", "none" for (height, width), or None
                to keep the input's.
            input_data_format: the same words, for arrays. Where None, the axis of 1 or 3 (else 4) channels in the
                first array decides for all; channels first if both ends qualify; two axes are (height, width). PIL
                images need no layout.
            num_threads: images worked on at the same time; as many as there are CPUs for this process where None. A
                generator has one at a time.
            device: where to put torch tensors when they are ready; the work itself is done on the CPU.
            limits: bounds the number of images.
            **kwargs: familiar keywords that change nothing, see `vit_core.keywords.PREPROCESSING`.

        Every other option overrides the processor's own for this call where not None.

        Returns:
            BatchFeature with `pixel_values`, in the order of `images`.

        Shapes: (channels, height, width) each; stacked along a new first axis with `return_tensors`.
        Dtypes: float32, but float16 and float64 arrays keep theirs when neither resized nor rescaled, and resizing
            alone gives uint8 for whole numbers.
        Raises:
            ImageError: an image or option cannot be used.
            InputError: unknown `return_tensors`; a device for other than torch tensors; a keyword nobody knows.
        Differs: the reference refuses generators, arrays of (height, width), most PIL modes, and data_format=None and
            "none", which its documentation promises; it takes YCbCr and HSV for RGB, reads a PIL image of height 1 or
            3 as channels first, clips PIL images of 16 and 32 bits, cuts floats to 8 bits where it resizes them, and
            lets NaN, empty, bool and object arrays pass.
        """
        given = {
            "do_resize": do_resize,
            "size": size,
            "resample": resample,
            "do_rescale": do_rescale,
            "rescale_factor": rescale_factor,
            "do_normalize": do_normalize,
            "image_mean": image_mean,
            "image_std": image_std,
            "do_convert_rgb": do_convert_rgb,
            "do_center_crop": do_center_crop,
            "crop_size": crop_size,
            "do_exif_transpose": do_exif_transpose,
            "alpha_background": alpha_background,
            "compatible": compatible,
        }
        check_preprocessing(type(self).__name__, kwargs, PreprocessKeywords.__annotations__)
        options = {
            name: CHECKS[name](name, getattr(self, name) if value is None else value) for name, value in given.items()
        }
        options["crop_size"] = options["crop_size"] or DEIT_DEFAULTS["crop_size"]
        batch = Batch(options, layout("data_format", data_format), layout("input_data_format", input_data_format))
        pixel_values = batch.process(images, threads(num_threads), limits)
        made = BatchFeature(
            {"pixel_values": [*pixel_values] if return_tensors is None else pixel_values}, tensor_type=return_tensors
        )
        return made if device is None or str(device) == "cpu" else made.to(device)

    def resize(
        self,
        image: Any,
        size: Size,
        resample: int = Image.Resampling.BILINEAR,
        data_format: object = None,
        input_data_format: object = None,
    ) -> Array:
        """One image stretched to `size`; layouts as for `preprocess`, the input's where `data_format` is None.

        Dtypes: uint8 for integers, float32 for floats (`compatible`: uint8 for whole numbers).
        """
        sides, code, compatible = height_width("size", size), CHECKS["resample"]("resample", resample), self.compatible
        return apply(
            lambda picture: steps.as_array(steps.resize(picture, sides, code, compatible=bool(compatible))),
            image,
            data_format,
            input_data_format,
        )

    def rescale(self, image: Any, scale: float, data_format: object = None, input_data_format: object = None) -> Array:
        """One image times `scale`, float32; layouts as for `resize`."""
        return apply(lambda picture: steps.rescale(picture, scale), image, data_format, input_data_format)

    def normalize(
        self,
        image: Any,
        mean: PerChannel,
        std: PerChannel,
        data_format: object = None,
        input_data_format: object = None,
    ) -> Array:
        """One image as (image - mean) / std per channel; integers become float32; layouts as for `resize`."""
        return apply(lambda picture: steps.normalize(picture, mean, std), image, data_format, input_data_format)

    def center_crop(
        self, image: Any, size: Size, data_format: object = None, input_data_format: object = None
    ) -> Array:
        """The middle of one image, with zeros around it where it is smaller than `size`; layouts as for `resize`."""
        sides = height_width("size", size)
        return apply(lambda picture: steps.center_crop(picture, sides), image, data_format, input_data_format)

    @overload
    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, return_unused_kwargs: Literal[True], **kwargs: Any
    ) -> tuple[Self, dict[str, Any]]: ...
    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        return_unused_kwargs: Literal[False] = False,
        **kwargs: Unpack[ProcessorKeywords],
    ) -> Self: ...
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        return_unused_kwargs: bool = False,
        **kwargs: Any,
    ) -> Any:
        """The processor stored in a folder, a JSON file or a hub repository.

        Args:
            pretrained_model_name_or_path: folder holding preprocessor_config.json, a weight file beside it, a JSON
                file, or "owner/name".
            return_unused_kwargs: as for `from_dict`.
            **kwargs: `vit_core.keywords.ProcessorKeywords`: revision, subfolder, cache_dir, token, local_files_only,
                force_download and endpoint (see `vit_core.hub.download.Repository`), limits, and options that override
                those of the file.

        Raises:
            MissingFileError: no such file, folder or repository.
            ImageError: the file belongs to another processor, or an option in it cannot be used.
        """
        from vit_core.hub.download import HUB_OPTIONS, resolve

        hub_options = {name: value for name, value in kwargs.items() if name in HUB_OPTIONS}
        overrides = {name: value for name, value in kwargs.items() if name not in HUB_OPTIONS}
        limits = overrides.pop("limits", LIMITS)
        path = Path(pretrained_model_name_or_path)
        is_found = path.suffix != ".json" or is_weights(path.name)
        if is_found:
            folder = resolve(pretrained_model_name_or_path, [PREPROCESSOR_NAME], **hub_options)
            path = folder / PREPROCESSOR_NAME
        read: Any = cls.from_dict
        options = read_options(path, cls.__name__, overrides, limits, is_found)
        return read(options, return_unused_kwargs=return_unused_kwargs, **overrides)

    @overload
    @classmethod
    def from_dict(
        cls, image_processor_dict: Mapping[str, Any], *, return_unused_kwargs: Literal[True], **kwargs: Any
    ) -> tuple[Self, dict[str, Any]]: ...
    @overload
    @classmethod
    def from_dict(
        cls, image_processor_dict: Mapping[str, Any], *, return_unused_kwargs: Literal[False] = False, **kwargs: Any
    ) -> Self: ...
    @classmethod
    def from_dict(
        cls, image_processor_dict: Mapping[str, Any], *, return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Any:
        """The processor with the options in a dict, overridden by keywords.

        Args:
            image_processor_dict: options, as in preprocessor_config.json.
            return_unused_kwargs: return (processor, keywords that are no options) instead of refusing such keywords.
            **kwargs: options that override those of the dict.
        """
        known = {*CHECKS, "use_fast", *image_processor_dict}
        unused = {name: value for name, value in kwargs.items() if name not in known}
        if unused and not return_unused_kwargs:
            raise ImageError(f"{cls.__name__}: no option called {', '.join(map(repr, unused))}.")
        overrides = {name: value for name, value in kwargs.items() if name in known}
        processor = cls(**{**image_processor_dict, **overrides})
        return (processor, unused) if return_unused_kwargs else processor

    @classmethod
    def from_json_file(cls, json_file: str | Path) -> Self:
        """The processor stored in one JSON file."""
        return cls(**read_options(Path(json_file), cls.__name__, {}))

    def to_dict(self) -> dict[str, Any]:
        """Every option and extra key as plain data, and `image_processor_type`, in a new dict.

        The type is DeiTImageProcessor if do_center_crop is on: transformers' ViTImageProcessor ignores that option.
        """
        options = {name: getattr(self, name) for name in OPTIONS}
        if not self.do_center_crop:
            return deepcopy({**self.extra, **options, "image_processor_type": type(self).__name__})
        if self.do_convert_rgb is None:  # an option that DeiT's does not have
            del options["do_convert_rgb"]
        crop_size = self.crop_size or size("crop_size", DEIT_DEFAULTS["crop_size"])
        return deepcopy({**self.extra, **options, "crop_size": crop_size, "image_processor_type": DEIT_NAMES[0]})

    def to_json_string(self) -> str:
        """The text of preprocessor_config.json.

        Raises:
            ImageError: an extra key holds something that JSON cannot.
        """
        try:
            return json_text(self.to_dict())
        except (TypeError, ValueError, RecursionError) as error:
            raise ImageError(f"{type(self).__name__} cannot be written as JSON: {error}.") from None

    def to_json_file(self, json_file_path: str | Path) -> None:
        """Writes the text of preprocessor_config.json to a file of any name, as a whole; its folder is made too."""
        what = f"{type(self).__name__}: {PREPROCESSOR_NAME}"
        text = check_text(self.to_json_string(), what=what, limit="config_bytes", error=ImageError)
        write_file(json_file_path, text, error=ImageError)

    def save_pretrained(self, save_directory: str | Path) -> list[str]:
        """Writes preprocessor_config.json into a folder, made where missing; returns the paths written."""
        path = Path(save_directory) / PREPROCESSOR_NAME
        self.to_json_file(path)
        return [str(path)]

    def __eq__(self, other: object) -> bool:
        return self.to_dict() == other.to_dict() if isinstance(other, ViTImageProcessor) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        try:
            return f"{type(self).__name__} {self.to_json_string()}"
        except ImageError:
            return f"{type(self).__name__} {self.to_dict()}"


class ViTFeatureExtractor(ViTImageProcessor):
    """The former name of ViTImageProcessor; the same in everything but its FutureWarning."""

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        warnings.warn("ViTFeatureExtractor is deprecated: use ViTImageProcessor.", FutureWarning, stacklevel=2)
        super().__init__(*args, **kwargs)


class AutoImageProcessor:
    """Finds the processor that a stored preprocessor_config.json names."""

    @overload
    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | Path,
        *,
        use_fast: Literal[False] | None = None,
        return_unused_kwargs: Literal[True],
        **kwargs: Any,
    ) -> tuple[ViTImageProcessor, dict[str, Any]]: ...
    @overload
    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | Path,
        *,
        use_fast: Literal[False] | None = None,
        return_unused_kwargs: Literal[False] = False,
        **kwargs: Unpack[ProcessorKeywords],
    ) -> ViTImageProcessor: ...
    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | Path,
        *,
        use_fast: bool | None = None,
        return_unused_kwargs: bool = False,
        **kwargs: Any,
    ) -> Any:
        """As `ViTImageProcessor.from_pretrained`; the file may give that class any of the names that it has had.

        Raises:
            ImageError: the file names another processor, or `use_fast` asks for torchvision's numerics.
        """
        if use_fast:
            raise ImageError("use_fast=True: expected False or None; the one processor here has Pillow's numerics.")
        read: Any = ViTImageProcessor.from_pretrained
        return read(pretrained_model_name_or_path, return_unused_kwargs=return_unused_kwargs, **kwargs)
