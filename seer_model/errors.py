"""What the person can put right: one tree of errors with `UserError` at its root.

    UserError
    |-- SettingsError           a setting is outside its allowed range
    |-- PictureError            these bytes cannot become a picture
    |-- DeviceError             the device asked for is not there, or too small
    |-- CheckpointError         a weights file is not what it should be
    |-- TrainingError           a training run cannot go on, or must not
    |   |-- PileError           the pictures to learn from are not fit for it
    |   `-- RankLost            another process of the run is gone, or silent
    `-- ModelError
        |-- ModelUnknown        no model has this name, no file lies there
        |-- ModelMissing        a known model that has not been fetched
        |-- LicenceNotAccepted  its terms were not accepted
        `-- DownloadFailed      the network, the disk or the remote side said no

Rule: a message says what is wrong, where, what was found and what is allowed, and what to do next. Whatever is not
in this tree is a bug and keeps its traceback.
"""


class UserError(Exception):
    """A failure that the person can put right; its text is shown to them as it is."""


class SettingsError(UserError):
    """A setting is outside its allowed range."""


class PictureError(UserError):
    """Bytes that cannot become a picture; the text is the reason, without the path."""


class DeviceError(UserError):
    """The device asked for is not there, or does not fit the job."""


class CheckpointError(UserError):
    """A weights file is damaged, foreign, or does not fit the architecture."""


class ModelError(UserError):
    """Something about a model's name, place or terms."""


class ModelUnknown(ModelError):
    """No model has this name, and no file lies there."""


class ModelMissing(ModelError):
    """A known model whose weights are not on this computer."""


class LicenceNotAccepted(ModelError):
    """The model's terms must be accepted before its weights are fetched."""


class DownloadFailed(ModelError):
    """The weights could not be fetched."""


class TrainingError(UserError):
    """A training run cannot go on, or must not."""


class PileError(TrainingError):
    """The pictures to learn from are not fit for it."""


class RankLost(TrainingError):
    """Another process of a run on several ranks is gone, or says nothing for too long."""
