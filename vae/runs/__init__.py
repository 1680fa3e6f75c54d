"""Run folders in lightning_logs/: made, found, read safely, resumed, and what is written into them."""

from vae.runs.checkpoints import (
    FROM_DATA,
    as_count,
    as_untrusted,
    best_score,
    describe,
    init_weights,
    load_run,
    read_checkpoint,
)
from vae.runs.folders import (
    ROOT,
    Interrupted,
    OtherCheckpoint,
    RunError,
    best_checkpoint,
    checkpoints_of,
    discard_run,
    find_checkpoint,
    is_in_run,
    last_checkpoint,
    lock_run,
    new_run,
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
from vae.runs.results import MAX_VALUES, check_file_name, figure_inputs, metrics_path, save_codes, save_test_metrics
from vae.runs.resuming import (
    SettingsLeftOut,
    check_whole_epoch,
    checkpoint_to_resume,
    how_to_resume,
    settings_to_save,
)
