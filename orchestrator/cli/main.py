"""The command line, `mpcache-bench`, put together from its commands."""

import typer

from orchestrator.cli.calibrate import calibrate
from orchestrator.cli.clean import clean
from orchestrator.cli.common import EXIT_CODES
from orchestrator.cli.compare import compare
from orchestrator.cli.cost import cost
from orchestrator.cli.doctor import doctor
from orchestrator.cli.eval import evaluate
from orchestrator.cli.experiment_schema import experiment_schema
from orchestrator.cli.lab import lab_app
from orchestrator.cli.networks import networks_app
from orchestrator.cli.observe import observe_app
from orchestrator.cli.policies import policies
from orchestrator.cli.report import report
from orchestrator.cli.run import run
from orchestrator.cli.submit import submit
from orchestrator.cli.train import train
from orchestrator.cli.version import version

app = typer.Typer(
    name="mpcache-bench",
    help="Measure private LLM decoding: MPC engines, KV-cache policies, verified links.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(networks_app, name="networks")
app.add_typer(lab_app, name="lab")
app.add_typer(observe_app, name="observe")
app.command()(calibrate)
app.command()(clean)
app.command()(policies)
app.command()(cost)
app.command()(doctor)
app.command()(compare)
app.command()(submit)
app.command()(train)
app.command("eval")(evaluate)
app.command()(run)
app.command()(report)
app.command("experiment-schema")(experiment_schema)
app.command("version")(version)


def main() -> None:
    """Entry point of the script `mpcache-bench`."""
    app()


if __name__ == "__main__":
    main()
