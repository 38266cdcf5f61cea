"""The errors of vitriad: one small tree, so `except VitError` catches everything this project raises on purpose.

    VitError
    ├── ConfigError       (ValueError)          a configuration that no model can be built from
    ├── CheckpointError   (ValueError)          a weight file or folder that cannot be used
    │   ├── MissingFileError (FileNotFoundError)  a file or folder that is not there
    │   └── UnsafeFileError                     a file that would run code, read elsewhere or exhaust the machine
    ├── ImageError        (ValueError)          an image, or a processor option, that cannot be used
    │   └── MissingImageError (FileNotFoundError)  an image file that is not there
    ├── InputError        (ValueError)          a call whose arguments do not fit the model
    └── BackendError      (ImportError)         a framework that is missing, or set up for something else

Every error is built from one string of at most three lines: what was being done on which name; expected against got,
with axis names; the likely fix.
"""


class VitError(Exception):
    """Base of every error raised on purpose.

    Differs: `ag_pass_through` keeps the class when TensorFlow's AutoGraph re-raises it; without it AutoGraph
    changes the class to one that callers cannot catch by name. `_keras_call_info_injected` keeps the text when Keras
    re-raises it; without it Keras adds many lines of its own.
    """

    ag_pass_through = True
    _keras_call_info_injected = True

    def __init__(self, message: str) -> None:
        super().__init__(message)


class ConfigError(VitError, ValueError):
    """A configuration is invalid; the message lists every violation found."""


class CheckpointError(VitError, ValueError):
    """A weight file, index or folder cannot be read or written."""


class MissingFileError(CheckpointError, FileNotFoundError):
    """A named file or folder does not exist."""


class UnsafeFileError(CheckpointError):
    """A file is refused because using it could run code, read outside its folder or exhaust the machine."""


class ImageError(VitError, ValueError):
    """An image or a processor option cannot be used."""


class MissingImageError(ImageError, FileNotFoundError):
    """A named image file does not exist."""


class InputError(VitError, ValueError):
    """Arguments of a model call have the wrong shape, dtype or value."""


class BackendError(VitError, ImportError):
    """A framework is not installed, or is set up in a way that cannot work."""
