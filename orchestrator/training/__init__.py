"""Training of the heads that some policies rate tokens with; the model itself stays as it is."""

from orchestrator.training.settings import Settings, TrainingError

__all__ = ["Settings", "TrainingError"]
