"""Run folders in lightning_logs/: made, found, read safely, resumed, and what is written into them."""

from vae.runs.checkpoints import describe, load_run, read_checkpoint
from vae.runs.folders import (
    ROOT,
    Interrupted,
    RunError,
    best_checkpoint,
    find_checkpoint,
    last_checkpoint,
    new_run,
    newest_run,
    run_folder,
    run_of,
    write_atomically,
)
from vae.runs.results import figure_inputs, frame_path, read_frames, read_history, save_test_metrics, scalar_tag
from vae.runs.resuming import (
    check_hyperparameters,
    check_settings,
    checkpoint_to_resume,
    event_file_sizes,
    how_to_resume,
    optimizer_state_matches,
    truncate_event_files,
)

__all__ = [
    "ROOT",
    "Interrupted",
    "RunError",
    "best_checkpoint",
    "check_hyperparameters",
    "check_settings",
    "checkpoint_to_resume",
    "describe",
    "event_file_sizes",
    "figure_inputs",
    "find_checkpoint",
    "frame_path",
    "how_to_resume",
    "last_checkpoint",
    "load_run",
    "new_run",
    "newest_run",
    "optimizer_state_matches",
    "read_checkpoint",
    "read_frames",
    "read_history",
    "run_folder",
    "run_of",
    "save_test_metrics",
    "scalar_tag",
    "truncate_event_files",
    "write_atomically",
]
