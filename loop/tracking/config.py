"""The keys of the section ``tracking``."""

from pydantic import Field

from actors.config import Config


class TrackingConfig(Config):
    """Logging to MLflow."""

    uri: str | None = None
    """URI of the tracking server; default: a sqlite file in the storage root."""
    experiment: str | None = None
    """Name of the experiment; default: the run's name."""
    tags: dict[str, str] = Field(default_factory=dict)
    """Tags of the loop's MLflow run."""
