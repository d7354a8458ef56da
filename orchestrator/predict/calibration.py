"""Speeds of this machine: measured once, stored in the user's cache folder, used by predictions."""

from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError

from orchestrator.records.atomic import write_atomically
from orchestrator.records.user_folders import NoHome, user_folder
from orchestrator.records.versions import host_versions
from parties.engines.fss.cost.speeds import Speeds, measure

VARIABLE = "XDG_CACHE_HOME"


class CalibrationError(Exception):
    """The file cannot be read or written; the message names it and the fix."""


class Calibration(BaseModel):
    """Speeds of one core of this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    measured: datetime = Field(description="When, UTC.")
    cpu: str = Field(description="The processor's name.")
    weight_bytes_per_s: PositiveFloat = Field(description="Of a matrix that is multiplied with a row.")
    cipher_bytes_per_s: PositiveFloat = Field(description="Of keystream, AES-256 in counter mode.")
    comparison_levels_per_s: PositiveFloat = Field(description="Of distributed comparison functions.")
    look_up_bytes_per_s: PositiveFloat = Field(description="Of one-hot vectors summed over a table.")
    seconds_per_round: PositiveFloat = Field(description="Loopback exchange and small operations of a round.")

    @property
    def speeds(self) -> Speeds:
        """The speeds in the form of the engine's cost model."""
        return Speeds(**self.model_dump(exclude={"measured", "cpu"}))


def calibration_file() -> Path:
    """`mpcache-bench/calibration.json` in the user's cache folder.

    Raises:
        CalibrationError: The user has no such folder.
    """
    try:
        return user_folder(VARIABLE, ".cache") / "calibration.json"
    except NoHome as error:
        raise CalibrationError(str(error)) from None


def calibrate() -> Calibration:
    """Measures for a few seconds and stores the result.

    Raises:
        CalibrationError: The file cannot be written.
    """
    path = calibration_file()
    speeds = measure()
    result = Calibration(measured=datetime.now(UTC), cpu=host_versions()["cpu"], **vars(speeds))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, result.model_dump_json(indent=2) + "\n")
    except OSError as error:
        fix = f"set {VARIABLE} to a folder that may be written"
        raise CalibrationError(f"cannot write {path}: {error.strerror}; {fix}") from error
    return result


def known_calibration() -> Calibration | None:
    """The stored calibration; None without one, or for a user without a cache folder.

    Raises:
        CalibrationError: The file cannot be read, is damaged or of another version.
    """
    try:
        path = calibration_file()
    except CalibrationError:
        return None
    try:
        return Calibration.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        fix = f"set {VARIABLE} to a folder that may be read and written"
        raise CalibrationError(f"cannot read {path}: {error.strerror}; {fix}") from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise CalibrationError(f"{path} is not a calibration; run `mpcache-bench cost --calibrate` again") from error
