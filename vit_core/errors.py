"""The errors of vitriad: one small tree, so `except VitError` catches everything this project raises on purpose.

    VitError
    ├── ConfigError       (ValueError)          a configuration that no model can be built from
    ├── CheckpointError   (ValueError)          a weight file or folder that cannot be used
    │   ├── MissingFileError (FileNotFoundError)  a file or folder that is not there
    │   ├── SizeMismatchError (RuntimeError)      weights of other shapes than the model's
    │   └── UnsafeFileError                     a file that would run code, read elsewhere or exhaust the machine
    ├── ImageError        (ValueError)          an image, or a processor option, that cannot be used
    │   └── MissingImageError (FileNotFoundError)  an image file that is not there
    ├── InputError        (ValueError)          a call whose arguments do not fit the model
    │   └── UnknownKeywordError (TypeError)       a keyword that a call does not take
    └── BackendError      (ImportError)         a framework that is missing, or set up for something else

Every error is built from one string of at most three lines: what was being done on which name; expected against got,
with axis names; the likely fix.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager


class VitError(Exception):
    """Base of every error raised on purpose.

    Differs: `ag_pass_through` keeps the class when TensorFlow's AutoGraph re-raises it; without it AutoGraph
    changes the class to one that callers cannot catch by name. `_keras_call_info_injected` keeps the text when Keras
    re-raises it; without it Keras adds many lines of its own.
    """

    ag_pass_through = True
    _keras_call_info_injected = True


class ConfigError(VitError, ValueError):
    """A configuration is invalid; the message lists every violation found."""


class CheckpointError(VitError, ValueError):
    """A weight file, index or folder cannot be read or written."""


class MissingFileError(CheckpointError, FileNotFoundError):
    """A named file or folder does not exist."""


class SizeMismatchError(CheckpointError, RuntimeError):
    """Weights have other shapes than the parameters of the model."""


class UnsafeFileError(CheckpointError):
    """A file is refused because using it could run code, read outside its folder or exhaust the machine."""


class ImageError(VitError, ValueError):
    """An image or a processor option cannot be used."""


class MissingImageError(ImageError, FileNotFoundError):
    """A named image file does not exist."""


class InputError(VitError, ValueError):
    """Arguments of a model call have the wrong shape, dtype or value."""


class UnknownKeywordError(InputError, TypeError):
    """A call has a keyword that it does not take."""


class BackendError(VitError, ImportError):
    """A framework is not installed, or is set up in a way that cannot work."""


@contextmanager
def reading(where: object, error: type[VitError] = CheckpointError) -> Iterator[None]:
    """Turns what the system says no to inside the block, and memory that it lacks, into an error of ours.

    Args:
        where: what is read, for the message.
        error: class of the error; a file that is not there is a MissingFileError.
    """
    try:
        yield
    except VitError:
        raise
    except OSError as problem:
        kind = MissingFileError if isinstance(problem, FileNotFoundError) and error is CheckpointError else error
        at = f" ({problem.filename})" if problem.filename not in (None, where, str(where)) else ""
        raise kind(f"{where}: cannot be read: {problem.strerror or problem}{at}.{advice(problem)}") from None
    except MemoryError as problem:
        raise error(f"{where}: out of memory{f': {problem}' if str(problem) else ''}.") from None


def on_command_line(option: str) -> str:
    """How to say on the command line what a file does not: only commands about checkpoints have such options."""
    return f"({option} on the command line; for other commands vitriad convert {option} writes a folder that says it)"


def advice(problem: OSError) -> str:
    """A line that says what helps, where something does."""
    if problem.errno in (errno.EMFILE, errno.ENFILE):
        return "\nMore files can be open at a time after: ulimit -n 4096. Or pass mmap=False, which keeps none open."
    if problem.errno == errno.ENOMEM:
        return "\nMapping a file takes no memory, but address space: see ulimit -v."
    return ""
