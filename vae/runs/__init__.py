"""Run folders in lightning_logs/: made, found, read safely, resumed, and what is written into them."""

from vae.runs.checkpoints import describe, load_run, read_checkpoint
from vae.runs.folders import (
    ROOT,
    Interrupted,
    OtherCheckpoint,
    RunError,
    best_checkpoint,
    checkpoints_of,
    find_checkpoint,
    last_checkpoint,
    lock_run,
    new_run,
    newest_run,
    run_folder,
    run_of,
    write_atomically,
)
from vae.runs.logs import (
    event_file_sizes,
    frame_path,
    read_frames,
    read_history,
    remove_later_frames,
    scalar_tag,
    truncate_event_files,
)
from vae.runs.results import MAX_VALUES, check_file_name, figure_inputs, save_codes, save_test_metrics
from vae.runs.resuming import check_hyperparameters, check_resumable, checkpoint_to_resume, how_to_resume
from vae.runs.settings import check_settings, read_settings

__all__ = [
    "MAX_VALUES",
    "ROOT",
    "Interrupted",
    "OtherCheckpoint",
    "RunError",
    "best_checkpoint",
    "check_file_name",
    "check_hyperparameters",
    "check_resumable",
    "check_settings",
    "checkpoints_of",
    "checkpoint_to_resume",
    "describe",
    "event_file_sizes",
    "figure_inputs",
    "find_checkpoint",
    "frame_path",
    "how_to_resume",
    "last_checkpoint",
    "load_run",
    "lock_run",
    "new_run",
    "newest_run",
    "read_checkpoint",
    "read_frames",
    "read_history",
    "read_settings",
    "remove_later_frames",
    "run_folder",
    "run_of",
    "save_codes",
    "save_test_metrics",
    "scalar_tag",
    "truncate_event_files",
    "write_atomically",
]
