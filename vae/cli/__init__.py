"""The command lines of the three scripts, and the messages that their users read."""

from vae.cli.errors import user_facing_errors
from vae.cli.evaluation import (
    TEST_OPTIONS,
    Resolution,
    check_request,
    choose_estimator,
    draw,
    evaluation_trainer,
    probe_model,
    report,
    run_command,
)
from vae.cli.output import print_table
from vae.cli.own_parts import import_parts
from vae.cli.train import TrainCLI
