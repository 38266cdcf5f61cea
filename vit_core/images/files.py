"""Image files, opened with care: known formats only, sizes checked before a pixel is decoded."""

from __future__ import annotations

import io
import os
import stat
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from vit_core.errors import ImageError, MissingImageError
from vit_core.images.options import Size, height_width
from vit_core.limits import LIMITS, Limits, check_limits

FILE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_EXPECTED = f"Expected an undamaged {', '.join(FILE_FORMATS)} file."


def open_image(
    path: str | os.PathLike[str] | bytes | BinaryIO,
    *,
    fast_decode: bool = False,
    size: Size = 224,
    limits: Limits = LIMITS,
) -> Image.Image:
    """The first frame of an image file, fully decoded, in the mode it has.

    Args:
        path: a regular file in one of `FILE_FORMATS`, the bytes of one, or a file object that is read from where it is
            to its end; URLs are never opened.
        fast_decode: decode a large JPEG at 1/2, 1/4 or 1/8 of its size, whichever is the smallest with neither side
            below the longer one of `size`. That takes a fraction of the time and memory; what is then resized to
            `size` differs from the exact result (docs/reference/benchmarks.md says by how much).
        size: what the image will be resized to, as `size` of an image processor; only fast_decode needs it.
        limits: bounds on bytes, sides and pixels, checked before decoding. Pillow's own Image.MAX_IMAGE_PIXELS stays:
            a warning above it, an error above twice that.

    Raises:
        MissingImageError: no such file.
        ImageError: not a regular file, too large, another format, damaged or cut short.
    """
    check_limits(limits)
    name, source = _source(path, limits)
    try:
        with Image.open(source, formats=FILE_FORMATS) as image:
            _check_picture_size(name, image.size, limits)
            if fast_decode:
                longer = max(height_width("size", size))
                image.draft(None, (longer, longer))  # only JPEG has drafts; EXIF may yet turn it
            image.load()
            return image
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name}: {error}\nThat is PIL.Image.MAX_IMAGE_PIXELS, which holds beside limits=.") from error
    except MemoryError:
        raise ImageError(f"{name}: not enough memory to decode it.") from None
    except UnidentifiedImageError:  # whose text names an object of Python where bytes are given
        raise ImageError(f"{name}: cannot be decoded: no image of a known format.\n{_EXPECTED}") from None
    except Exception as error:  # decoders fed with damaged bytes raise nearly anything
        raise ImageError(f"{name}: cannot be decoded: {error}.\n{_EXPECTED}") from error


def image_pixels(path: str | os.PathLike[str] | bytes, *, limits: Limits = LIMITS) -> int:
    """Pixels of an image file, by its header: nothing is decoded. 0 of what `open_image` will refuse.

    Raises:
        MissingImageError, ImageError: no such file, not a regular one, or too large.
    """
    check_limits(limits)
    _, source = _source(path, limits)
    try:
        with Image.open(source, formats=FILE_FORMATS) as image:
            return image.width * image.height
    except Exception:  # as above
        return 0


def _source(path: str | os.PathLike[str] | bytes | BinaryIO, limits: Limits) -> tuple[str, str | BinaryIO]:
    """What to call an image in messages, and what Pillow opens: a regular file, or bytes; neither is too large."""
    if isinstance(path, bytes | bytearray | memoryview):
        _check_file_size("the image", len(path), limits)
        return "the image", io.BytesIO(path)
    if not isinstance(path, str | os.PathLike):
        if not callable(getattr(path, "read", None)):
            raise ImageError(f"open_image: expected a path, bytes or a file object, got {type(path).__name__}.")
        content = path.read(limits.image_file_bytes + 1)
        if not isinstance(content, bytes):
            raise ImageError("open_image: expected a file object that reads bytes; open it with mode 'rb'.")
        _check_file_size("the image", len(content), limits)
        return "the image", io.BytesIO(content)
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise MissingImageError(f"{path}: no such file.") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be opened: {error}.") from error
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{path}: expected a regular file.")
    _check_file_size(str(path), status.st_size, limits)
    return str(path), os.fspath(path)


def _check_file_size(name: str, size: int, limits: Limits) -> None:
    if size > limits.image_file_bytes:
        raise ImageError(f"{name}: {size} bytes, above {limits.bound('image_file_bytes')}.")


def _check_picture_size(name: str, size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if max(size) > limits.image_file_side or width * height > limits.image_pixels:
        raise ImageError(
            f"{name}: height {height} and width {width} are more than the limits of {limits.image_file_side} pixels a "
            f"side and {limits.image_pixels} in all.\nRaise them with limits=replace(LIMITS, image_pixels=...)."
        )
