"""`mpcache-bench experiment-schema`."""

import json

from orchestrator.cli.common import say


def experiment_schema() -> None:
    """Print the JSON schema of experiment files, for editors."""
    from orchestrator.experiment.experiment import Experiment  # heavier imports wait until they are needed

    say(json.dumps(Experiment.model_json_schema(), indent=2))
