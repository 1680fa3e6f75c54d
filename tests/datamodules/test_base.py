"""What all data sets have in common: checks, order, blocks, what is shown of them, and hyper-parameters."""

import json
import re
import resource
import warnings
from math import inf
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import SPLITS, ready
from processes import CONTEXT, PROJECT, fork
from pytorch_lightning import LightningModule, Trainer, seed_everything

from datamodules import (
    MNIST,
    CryptoPunks,
    DataError,
    DataWarning,
    Digits,
    ImageDataModule,
    ImageDataset,
    ImageFolder,
    base,
)
from datamodules.blocks import BlockSampler, shard_batches
from datamodules.memory import fits_on_gpu
from datamodules.seeds import derive_seed


class Own(ImageDataModule):
    """A data set of one's own: `load` returns what the test gives."""

    image_shape = (1, 4, 5)

    def __init__(self, splits=None, **kwargs):
        super().__init__(**kwargs)
        self.given = splits

    def load(self):
        return self.given


def own(**parts):
    """Three splits of random images, changed as the test says."""
    images = torch.randint(256, (30, 1, 4, 5), dtype=torch.uint8)
    splits = {name: ImageDataset(part) for name, part in zip(SPLITS, images.split([20, 6, 4]), strict=True)}
    return Own(splits | parts)


def batches(loader, epoch):
    """The batches of indices of an epoch, whatever blocks they come in."""
    loader.batch_sampler.set_epoch(epoch)
    return [batch.tolist() for block in loader for batch in block.index.split(block.sizes)]


def order(data, epoch):
    return sum(batches(data.train_dataloader(), epoch), [])


def test_every_image_once_in_an_order_that_seed_and_epoch_determine():
    data = ready(Digits(batch_size=100))
    assert sorted(order(data, 0)) == list(range(1_197))
    assert order(data, 3) == order(ready(Digits(batch_size=100)), 3)
    assert len({tuple(order(ready(Digits(seed=seed)), epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_blocks_hold_what_their_indices_say():
    data = ready(Digits(batch_size=100, steps_per_block=5))
    for loader, split, sizes in (
        (data.train_dataloader(), "train", [(100,) * 5, (100,) * 5, (100, 97)]),
        (data.val_dataloader(), "val", [(100,), (100,), (100,)]),
    ):
        blocks = list(loader)
        assert [block.sizes for block in blocks] == sizes
        assert len(loader) == len(sizes)
        for block in blocks:
            assert torch.equal(block.images, data.splits[split].images[block.index])
            assert torch.equal(block.labels, data.splits[split].labels[block.index])
            assert block.images.dtype == torch.uint8


@pytest.mark.parametrize("steps_per_block", [1, 4, 10, 1_000])
def test_the_batches_do_not_depend_on_the_blocks(steps_per_block):
    data = ready(Digits(batch_size=50, steps_per_block=steps_per_block))
    loader = data.train_dataloader()
    assert batches(loader, 2) == batches(ready(Digits(batch_size=50, steps_per_block=7)).train_dataloader(), 2)
    assert len(loader) == len(list(loader)) == -(-24 // steps_per_block)


def test_each_pass_outside_a_trainer_is_the_next_epoch():
    data = ready(Digits())
    loader = data.train_dataloader()
    passes = [torch.cat([block.index for block in loader]).tolist() for _ in range(3)]
    assert passes == [order(data, epoch) for epoch in range(3)]


class Seen(LightningModule):
    """Keeps what the Trainer hands to its steps."""

    def __init__(self):
        super().__init__()
        self.epochs = {}

    def training_step(self, batch, batch_idx):
        self.epochs.setdefault(self.current_epoch, []).append(batch)

    def configure_optimizers(self):
        return None


QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def seen_in_training(data, epochs=3, **options):
    lit = Seen()
    Trainer(max_epochs=epochs, accelerator="cpu", **QUIET, **options).fit(lit, data)
    return lit.epochs


def test_the_trainer_sets_the_epoch():
    for epoch, blocks in seen_in_training(Digits(batch_size=50)).items():
        assert torch.cat([block.index for block in blocks]).tolist() == order(ready(Digits(batch_size=50)), epoch)
        assert [block.sizes for block in blocks] == [(50,) * 10, (50,) * 10, (50, 50, 50, 47)]
        assert blocks[0].images.dtype == torch.float32


def test_overfit_batches_are_the_same_in_each_epoch():
    seen = seen_in_training(Digits(batch_size=50), overfit_batches=1)
    assert [block.index.tolist() for blocks in seen.values() for block in blocks] == [list(range(500))] * 3


def test_held_out_images_come_in_order():
    data = ready(Digits(batch_size=70))
    assert torch.cat([batch.index for batch in data.test_dataloader()]).tolist() == list(range(300))


def test_images_become_floats_on_the_device():
    data = ready(Digits())
    batch = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    assert batch.images.dtype == torch.float32
    torch.testing.assert_close(batch.images, data.splits["val"].images[:100].float() / 255)


def test_training_images_live_on_a_gpu_that_has_room(monkeypatch):
    """Without a GPU: the decision, and that loading happens where the images are."""
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1_000, 2_000))
    assert fits_on_gpu(500, cuda)
    assert not fits_on_gpu(501, cuda)
    assert not fits_on_gpu(1, torch.device("cpu"))

    moved = []
    monkeypatch.setattr(base, "fits_on_gpu", lambda num_bytes, device: moved.append(num_bytes) or True)
    data = ready(Digits(batch_size=50))
    expected = order(data, 1)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(strategy=strategy, overfit_batches=0, global_rank=0, world_size=1)
    loader = data.train_dataloader()
    assert moved == [1_197 * 64]
    assert loader.dataset is not data.splits["train"]
    assert loader.batch_sampler.device == loader.dataset.images.device
    assert sum(batches(loader, 1), []) == expected


@pytest.mark.parametrize("num_images", [3, 99, 100, 201, 202, 203, 1_257])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_share_the_images_of_each_step(num_images, world_size):
    shards = [shard_batches(torch.arange(num_images), 50, rank, world_size) for rank in range(world_size)]
    assert sorted(torch.cat([torch.cat(steps) for steps in shards]).tolist()) == [*range(num_images)]
    one = shard_batches(torch.arange(num_images), 50 * world_size, 0, 1)
    for step, parts in enumerate(zip(*shards, strict=True)):  # equally many steps, or one process waits for ever
        sizes = [len(part) for part in parts]
        assert 0 < max(sizes) - 1 <= min(sizes) <= 51 or sizes[0] == 1
        if len(one) == len(shards[0]):
            assert torch.cat(parts).tolist() == one[step].tolist()
    for rank in range(world_size):
        sampler = BlockSampler(num_images, 50, 3, seed=0, rank=rank, world_size=world_size)
        blocks = [*sampler]
        assert len(sampler) == len(blocks)
        assert sum(map(len, blocks)) == len(shards[0]) == sampler.num_steps(len(blocks)) == sampler.num_steps(inf)
        assert sampler.num_steps(1) == len(blocks[0])


def test_too_few_images_for_so_many_devices():
    data = ready(Digits())
    data.trainer = SimpleNamespace(global_rank=0, world_size=400)
    with pytest.raises(DataError, match="300 images are too few for 400 devices: use fewer"):
        data.test_dataloader()


def test_a_batch_size_that_is_not_given_suits_the_set():
    def sizes(num_images, world_size=1, **options):
        images = torch.zeros(num_images, 1, 4, 5, dtype=torch.uint8)
        data = ready(Own({name: ImageDataset(images) for name in SPLITS}, **options))
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        data.trainer = SimpleNamespace(strategy=strategy, overfit_batches=0, global_rank=0, world_size=world_size)
        return [size for block in data.train_dataloader() for size in block.sizes]

    assert sizes(5_000, batch_size=None) == [100] * 50
    assert sizes(250, batch_size=None) == [25] * 10
    assert sizes(250, world_size=2, batch_size=None) == [12] * 10 + [5]
    assert sizes(7, batch_size=None) == [1] * 7
    assert sizes(250, batch_size=60) == [60, 60, 60, 60, 10]
    assert sizes(250) == [100, 100, 50]
    assert ImageFolder(data_dir=".").hparams.batch_size is None


def test_the_seed_is_by_default_that_of_seed_everything():
    assert Digits().hparams.seed == 0
    seed_everything(4)
    data = Digits()
    assert (data.hparams.seed, Digits(seed=1).hparams.seed) == (4, 1)
    assert type(data.hparams.seed) is int  # a checkpoint holds it


def test_seeds_are_documented_and_far_from_each_other():
    assert derive_seed(1, 2, 3) == 12997252459554536576  # NumPy keeps SeedSequence as it is
    seeds = {derive_seed(stream, seed, epoch) for stream in (1, 2) for seed in range(30) for epoch in range(30)}
    assert len({seed % 2**32 for seed in seeds}) == 1_800  # torch's CPU generator keeps 32 bits of a seed
    assert "hash(" not in "".join(path.read_text() for path in (PROJECT / "datamodules").glob("*.py"))


def keyed(**keys):
    """Splits of images with those keys, which are their grey values too."""
    parts = {split: torch.tensor(keys[split], dtype=torch.int64) for split in SPLITS}
    return Own(
        {s: ImageDataset(part.byte().view(-1, 1, 1, 1).expand(-1, 1, 4, 5), keys=part) for s, part in parts.items()}
    )


BEGUN = {"train": [1, 2, 3, 4, 5], "val": [6, 7], "test": [8, 9]}


def test_a_resumed_run_needs_the_data_it_began_with():
    state = ready(own()).state_dict()
    ready(own()).load_state_dict(state)
    with pytest.raises(DataError, match="Own has changed since the run began: images: 20 train then, 19 now"):
        ready(own(train=ImageDataset(torch.zeros(19, 1, 4, 5, dtype=torch.uint8)))).load_state_dict(state)
    state = ready(keyed(**BEGUN)).state_dict()
    ready(keyed(**BEGUN)).load_state_dict(state)
    with pytest.raises(
        DataError, match="Own has changed since the run began: images: 1 gone, 1 new, 2 in another split"
    ):
        ready(keyed(train=[1, 2, 3, 4, 6], val=[5, 7], test=[8, 10])).load_state_dict(state)
    ready(keyed(**BEGUN)).load_state_dict({"train": 5, "val": 2, "test": 2})  # of a version that kept no keys


@pytest.mark.parametrize(
    "state",
    [
        None,
        "train",
        {"train": 5},
        {"train": "5", "val": 2, "test": 2},
        {"train": 5, "val": 2, "test": 2, "keys": {"train": torch.arange(5)}},
        {"train": 1, "val": 1, "test": 2**60, "keys": dict.fromkeys(SPLITS, torch.zeros(1, dtype=torch.int64))},
        {"train": 9, "val": 9, "test": 9, "keys": dict.fromkeys(SPLITS, torch.zeros((), dtype=torch.int64).expand(9))},
        {"train": 1, "val": 1, "test": 1, "keys": dict.fromkeys(SPLITS, torch.zeros(1))},
        {"train": 5, "val": 2, "test": 2, "initial": {"train": 5}},
    ],
)
def test_a_damaged_record_of_a_split(state):
    with pytest.raises(DataError, match="The checkpoint's record of its split is damaged"):
        keyed(**BEGUN).load_state_dict(state)


def test_copies_of_an_image_are_in_one_split():
    with pytest.warns(
        DataWarning, match="Own: left out 2 val images, 1 test images, copies of images of another split"
    ):
        data = ready(keyed(train=[1, 1, 2, 3], val=[4, 1, 3], test=[5, 4, 6]))
    assert {split: part.keys.tolist() for split, part in data.splits.items()} == {
        "train": [1, 1, 2, 3],
        "val": [4],
        "test": [5, 6],
    }
    assert data.images("test").mul(255).mean((1, 2, 3)).tolist() == [5, 6]


@pytest.mark.parametrize(
    ("now", "tested", "message"),
    [
        (BEGUN, [8, 9], None),
        (BEGUN | {"test": [8, 9, 10]}, [8, 9, 10], "Own has changed since training: images: 0 gone, 1 new, 0 in ano"),
        (
            {"train": [1, 2, 8], "val": [6, 3], "test": [4, 5, 7, 9, 10]},
            [9, 10],
            "0 gone, 1 new, 5 in another split. Left out 1 val images, 3 test images: the model was trained on",
        ),
    ],
)
def test_a_model_is_not_tested_on_what_it_was_trained_on(now, tested, message):
    state = ready(keyed(**BEGUN)).state_dict()
    data = keyed(**now)
    data.exclude_trained(state)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", DataWarning)
        ready(data)
    assert data.splits["test"].keys.tolist() == tested
    assert message in str(warned[0].message) if message else not warned


def test_a_model_whose_checkpoint_does_not_say_what_it_was_trained_on():
    for state, said in (({}, "some of those."), ({"train": 4, "val": 2, "test": 2}, "images: 4 train then, 5 now).")):
        data = keyed(**BEGUN)
        data.exclude_trained(state)
        with pytest.warns(DataWarning, match=f"Own: the model was trained on its images, its .*{re.escape(said)}$"):
            ready(data)
        assert data.splits["test"].keys.tolist() == BEGUN["test"]


def keys_of(data):
    return {split: part.keys.tolist() for split, part in data.splits.items()}


@pytest.mark.parametrize("loaded", [False, True])
def test_weights_that_begin_a_training_bring_along_what_they_were_trained_on(loaded):
    state = ready(keyed(**BEGUN)).state_dict()
    grown = {"train": [11, 2], "val": [1, 6, 12, 14], "test": [3, 7, 8, 13, 15]}
    data = ready(keyed(**grown)) if loaded else keyed(**grown)
    with pytest.warns(DataWarning, match="Own has changed since training: .* Left out 1 val images, 2 test images"):
        data.exclude_trained(state)
        ready(data)
    assert keys_of(data) == {"train": [11, 2], "val": [6, 12, 14], "test": [8, 13, 15]}
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        resumed = ready(keyed(**grown))
        resumed.load_state_dict(data.state_dict())
        tested = keyed(**grown)
        tested.exclude_trained(data.state_dict())
        assert keys_of(resumed) == keys_of(ready(tested)) == keys_of(data)
    torch.testing.assert_close(resumed.state_dict(), data.state_dict())
    third = keyed(**grown | {"train": [14], "val": [4, 11, 16], "test": [5, 6, 12, 17]})
    with pytest.warns(DataWarning, match=r"Left out \d val"):
        third.exclude_trained(resumed.state_dict())
        ready(third)
    assert keys_of(third) == {"train": [14], "val": [16], "test": [17]}


def test_a_lineage_with_a_gap_is_said():
    data = keyed(**BEGUN)
    data.exclude_trained(ready(keyed(**BEGUN)).state_dict() | {"initial": {}})
    with pytest.warns(DataWarning, match="Own: the model was trained on its images, its checkpoint does not say on wh"):
        ready(data)


GREY = torch.zeros(6, 1, 4, 5, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"train": ImageDataset(GREY.float())}, "train images: expected torch.uint8, got torch.float32"),
        ({"val": ImageDataset(GREY.permute(0, 2, 3, 1))}, r"\[N, 1, 4, 5\] \(image_shape\), got \[6, 4, 5, 1\]"),
        ({"val": ImageDataset(GREY[:, 0])}, r"val images: expected shape \[N, 1, 4, 5\] .*, got \[6, 4, 5\]"),
        ({"test": ImageDataset(GREY.numpy())}, "test images: expected a tensor, got ndarray"),
        ({"test": GREY}, "test: expected an ImageDataset, got Tensor"),
        ({"extra": ImageDataset(GREY)}, r"load\(\) returned train, val, test, extra"),
        (
            {"val": ImageDataset(GREY, torch.zeros(6, dtype=torch.int))},
            "val labels: the data set has labels, but no cla",
        ),
        ({"val": ImageDataset(GREY, [0] * 6)}, "val labels: expected a tensor, got list"),
        ({"val": ImageDataset(GREY, torch.zeros(6))}, r"val labels: expected integers \[6\], got torch.float32 \[6\]"),
        ({"val": ImageDataset(GREY, torch.zeros(5).int())}, r"expected integers \[6\], got torch.int32 \[5\]"),
        ({"train": ImageDataset(GREY[:0])}, "Own has no training images"),
    ],
)
def test_setup_checks_what_load_returned(part, message):
    with pytest.raises(DataError, match=message) as error:
        ready(own(**part))
    if "train" not in part or len(part["train"]):
        assert "Return {" in str(error.value) or "Set classes" in str(error.value)


@pytest.mark.parametrize("returned", [None, [], {"train": ImageDataset(GREY)}])
def test_setup_needs_three_splits(returned):
    with pytest.raises(DataError, match=r"(?s)load\(\) returned .*Return \{"):
        ready(Own(returned))


def test_labels_must_be_within_the_classes(monkeypatch):
    monkeypatch.setattr(Own, "classes", ("a", "b"))
    labels = torch.tensor([0, 1, 0, 1, 0, 2])
    with pytest.raises(DataError, match="val labels: expected 0 to 1, one for each of classes, got 0 to 2"):
        ready(own(val=ImageDataset(GREY, labels)))
    data = ready(own(val=ImageDataset(GREY, labels.clamp(max=1))))
    assert data.labels("val", 3).tolist() == [0, 1, 0]
    assert data.labels("train") is None


def test_a_data_set_without_an_image_shape_says_so():
    class Shapeless(ImageDataModule):
        def load(self):
            return dict.fromkeys(SPLITS, ImageDataset(GREY))

    for use in (lambda: Shapeless().image_shape, lambda: ready(Shapeless())):
        with pytest.raises(DataError, match=r"Shapeless has no image_shape: define it as \(channels, height, width\)"):
            use()
    assert Shapeless().name == "Shapeless"


def test_the_first_images_of_a_split_and_of_all():
    data = own()
    everything = torch.cat([data.given[name].images for name in SPLITS]) / 255
    assert torch.equal(data.images("val"), everything[20:26])
    assert torch.equal(data.images("val", 2), everything[20:22])
    for n in (0, 5, 20, 23, 30, 99, None):
        assert torch.equal(data.images("all", n), everything[:n])
    assert data.labels("all", 23) is None
    with pytest.raises(ValueError, match="split: expected one of train, val, test, all; got 'tset'"):
        data.images("tset")
    for n in (-1, 2.5, "3"):  # which a slice would take, or not name
        with pytest.raises(ValueError, match=f"n: expected a whole number of at least 0, got {n!r}"):
            data.images("val", n)
    empty = own(test=ImageDataset(GREY[:0]))
    assert len(empty.images("all")) == 26
    with pytest.raises(DataError, match="Own has no test images"):
        empty.images("test")


def test_labels_of_all_splits():
    data = Digits()
    ready(data)
    expected = torch.cat([data.splits[name].labels for name in SPLITS])
    assert torch.equal(data.labels("all"), expected)
    assert torch.equal(data.labels("all", 1_200), expected[:1_200])


class Large(ImageDataModule):
    """123 MB of images."""

    image_shape = (1, 32, 32)

    def load(self):
        images = torch.randint(4, (120_000, 1, 32, 32), dtype=torch.uint8)
        return {"train": ImageDataset(images), "val": ImageDataset(images[:9]), "test": ImageDataset(images[:9])}


def megabytes_used(queue):
    """The growth of the process's peak memory, put into the queue."""
    torch.set_num_threads(1)
    data = Large()
    data.setup()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data.mean_image(), data.palette(), data.images("all", 40), data.images("train", 40)
    queue.put((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def test_nothing_copies_the_data_set():
    queue = CONTEXT.SimpleQueue()
    process = fork(megabytes_used, queue)
    assert queue.get() < 100  # a single copy takes more
    process.join()


def test_the_mean_image_is_that_of_the_training_images(tiny_mnist, monkeypatch):
    data = ready(MNIST(val_size=20, binarize="none"))
    monkeypatch.setattr("datamodules.blocks.CHUNK_BYTES", 5_000)
    torch.testing.assert_close(data.mean_image(), (data.splits["train"].images / 255).mean(0))


def test_the_palette_is_that_of_the_training_images(tiny_punks):
    palette = ready(CryptoPunks("black")).palette()
    assert sorted(palette) == sorted({(0, 0, 0)} | {(10 * i, i, 0) for i in range(12)})


@pytest.mark.parametrize("ask", ["palette", "mean_image", "train_dataloader", "val_dataloader", "test_dataloader"])
def test_whatever_is_asked_of_the_data_loads_it(tiny_punks, ask):
    getattr(CryptoPunks("black"), ask)()


def test_a_palette_of_too_many_colours():
    images = torch.randint(256, (9, 3, 40, 40), dtype=torch.uint8)
    data = Own(dict.fromkeys(SPLITS, ImageDataset(images)))
    data.image_shape = (3, 40, 40)
    with pytest.raises(DataError, match=r"Own has 14,\d+ colours; a palette holds at most 1,024"):
        ready(data).palette()


@pytest.mark.parametrize(
    "data",
    [Digits(batch_size=7), CryptoPunks("black", data_dir="here"), MNIST(val_size=5, seed=3, steps_per_block=2)],
)
def test_hyper_parameters_rebuild_the_data_module(data):
    options = json.loads(json.dumps(data.hparams))  # plain values only
    assert options.pop("dataset") == type(data).__name__
    assert type(data)(**options).hparams == data.hparams


def test_a_relative_data_dir_is_found_from_another_folder(tiny_punks, tmp_path, monkeypatch):
    hparams = dict(CryptoPunks(data_dir=".").hparams)
    monkeypatch.delenv("VAE_DATA_DIR")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert hparams.pop("dataset") == "CryptoPunks"
    data = ready(CryptoPunks(**hparams))
    assert (data.data_dir, len(data.splits["train"])) == (Path(tmp_path).resolve(), 12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected a whole number of at least 1, got 0"),
        ({"batch_size": "100"}, "batch_size: expected a whole number of at least 1, got '100'"),
        ({"steps_per_block": 2.5}, r"steps_per_block: expected a whole number of at least 1, got 2\.5"),
        ({"steps_per_block": 0}, "steps_per_block: expected a whole number of at least 1, got 0"),
        ({"batch_size": True}, "batch_size: expected a whole number of at least 1, got True"),
        ({"seed": -1}, "seed: expected a whole number of at least 0, got -1"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        Digits(**options)


@pytest.mark.parametrize(
    ("variable", "expected"),
    [("~/images", "/home/me/images"), ("~nobody_of_that_name", "~nobody_of_that_name"), ("", "data")],
)
def test_the_data_dir_of_the_environment(monkeypatch, variable, expected):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("VAE_DATA_DIR", variable)
    assert Digits().data_dir == Path(expected)
    Digits(data_dir=variable)  # no error


def test_a_part_of_a_split_is_the_same_images_whatever_the_batches():
    found = []
    for batch_size in (7, 100):
        data = Digits(batch_size=batch_size)
        data.num_test_images = 50
        batches = [*data.test_dataloader()]
        found.append(torch.cat([batch.index for batch in batches]))
        assert torch.equal(torch.cat([batch.images for batch in batches]), data.splits["test"].images[found[-1]])
    assert torch.equal(*found)
    assert len(found[0].unique()) == 50
    assert found[0].max() > 250  # not the first ones
    data.num_test_images = 1_000
    assert torch.equal(torch.cat([batch.index for batch in data.test_dataloader()]), torch.arange(300))
