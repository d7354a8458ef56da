"""Trains the heads with which some policies rate tokens; the model itself is not trained."""

from orchestrator.training.settings import Settings, TrainingError

__all__ = ["Settings", "TrainingError"]
