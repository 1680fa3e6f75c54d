"""Parts of one's own: the example from end to end, `--import`, and the errors around both."""

import re
import shutil

import pytest
import torch
from processes import PROJECT
from scipy.stats import laplace
from torch import nn
from torch.distributions import Independent, Laplace

import datamodules
import vae.model
import vae.objectives
from datamodules import Digits, register_dataset
from vae import VAE, LitVAE, figures, register_likelihood, register_network, register_objective, runs
from vae.figures import register_figure
from vae.likelihoods import Likelihood, MeanLikelihood
from vae.networks import MLPDecoder, MLPEncoder
from vae.noise import StepNoise

EXAMPLE = PROJECT / "examples" / "own_parts.py"
IMPORT = ("--import", EXAMPLE)
OWN = ("--data", "Bars", "--model.likelihood", "laplace", "--model.network", "residual", "--model.hidden_dims", 16)
OWN += ("--model.objective", "renyi", "--model.num_samples", 4)
ADVICE = "If it is a part of your own, name the module that registers it: --import MODULE"


@pytest.fixture
def trained(fork):
    """A run of the example's parts, in lightning_logs/version_0."""
    outcome = fork("train.py", *IMPORT, *OWN, "--trainer.max_epochs", 1)
    assert (outcome.status, outcome.err) == (0, "")
    assert f"test.py --import {EXAMPLE}\n" in outcome.out


def test_the_example_from_end_to_end(trained, process, tmp_path):
    tested = process("test.py", *IMPORT, "--num_samples", 1000)
    assert tested.status == 0
    assert "bars, test" in tested.out
    assert "log-density" in tested.out
    drawn = process("visualizations.py", *IMPORT, "--figures", "posterior_scales", "samples", "--bins", 5)
    assert (drawn.status, drawn.err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "visualization_imgs").iterdir()) == [
        "bars_posterior_scales_latent_variables=2.png",
        "bars_samples_latent_variables=2.png",
    ]
    explored = process("visualizations.py", *IMPORT, "--figures", "explorer")
    assert "the page has no network ResidualEncoder" in explored.err
    resumed = process("train.py", *IMPORT, "--ckpt_path", "last", "--trainer.max_epochs", 2)
    assert (resumed.status, resumed.err) == (0, "")
    assert "2 in all" in resumed.out
    history = runs.read_history(tmp_path / "lightning_logs" / "version_0")
    (bound, *_) = figures.FIGURES["learning_curve"](history).axes
    assert [len(line.get_xdata()) for line in bound.lines] == [2, 2]
    assert "renyi bound in training" in bound.lines[0].get_label()


def test_the_examples_likelihood_is_that_of_scipy_and_its_bound_lies_between_elbo_and_iwae(fork, tmp_path):
    code = "import sys, torch\nfrom own_parts import *\n"
    code += "head = LaplaceLikelihood(lambda n: torch.nn.Identity(), (1, 2, 2), scale=0.3)\n"
    code += "torch.manual_seed(0)\nlogits, x = torch.randn(5, 1, 2, 2), torch.rand(5, 1, 2, 2)\n"
    code += "noise, vae = StepNoise((6, 5, 2), (0, 0, 0), 0, x.device), VAE((1, 2, 2)).requires_grad_(False)\n"
    code += "bounds = [renyi(vae, x, noise, Options(), alpha)[0] for alpha in (0, 0.5, 0.9999)]\n"
    code += "bounds += [vae.log_marginal(x, eps=noise.eps), vae.elbo(x, eps=noise.eps, analytic_kl=False).elbo]\n"
    code += "torch.save((logits, x, head(logits).log_prob(x), bounds), 'values.pt')\n"
    (tmp_path / "values.py").write_text(code)
    assert fork(tmp_path / "values.py", PYTHONPATH=f"{PROJECT}:{EXAMPLE.parent}").status == 0
    logits, x, log_prob, (at_0, half, near_1, iwae, elbo) = torch.load(tmp_path / "values.pt")
    torch.testing.assert_close((at_0, near_1), (iwae, elbo), atol=2e-3, rtol=0)
    assert ((elbo < half) & (half < iwae)).all()
    expected = laplace.logpdf(x, logits.double().sigmoid(), 0.3).sum((1, 2, 3))
    assert log_prob.tolist() == pytest.approx(expected.tolist(), rel=1e-5)


@pytest.mark.parametrize(
    ("script", "args"),
    [("test.py", ()), ("visualizations.py", ()), ("train.py", ("--ckpt_path", "last", "--trainer.max_epochs", 2))],
)
def test_without_the_import_the_message_names_what_is_unknown(trained, fork, tmp_path, script, args):
    """Nothing is imported, although the module would be found."""
    shutil.copy(EXAMPLE, tmp_path / "own_parts.py")
    with (tmp_path / "own_parts.py").open("a") as file:
        file.write("open('it_ran', 'w')\n")
    outcome = fork(script, *args, PYTHONPATH=str(tmp_path))
    assert outcome.status == 1
    assert "unknown data set 'Bars': choose one of " in outcome.err
    assert outcome.err.endswith(f"{ADVICE}\n")
    assert not (tmp_path / "it_ran").exists()


def test_a_file_cannot_name_an_import(run_folder, fork, tmp_path):
    (tmp_path / "evil.py").write_text("open('it_ran', 'w')\n")
    path = run_folder / "config.yaml"
    path.write_text(f"import: evil.py\n{path.read_text()}")
    assert fork("train.py", "--ckpt_path", "last", PYTHONPATH=str(tmp_path)).status == 0  # it reads no such file
    fork("train.py", "--config", path, "--run_name", "again", PYTHONPATH=str(tmp_path))
    fork("test.py", "--num_samples", 1, PYTHONPATH=str(tmp_path))
    assert not (tmp_path / "it_ran").exists()


MODULES = {
    "x = 1\n\n\ndef f():\n    return x / 0\n\n\nf()\n": r"parts\.py, line 5: ZeroDivisionError: division by zero$",
    "import missing_package\n": r"parts\.py, line 1: ModuleNotFoundError: No module named 'missing_package'$",
    "x = (\n": r"SyntaxError: '\(' was never closed \(parts\.py, line 1\)$",
    "from datamodules import *\n\n@register_dataset\nclass Digits(Digits):\n    pass\n": (
        r"parts\.py, line 3: ValueError: the data set 'Digits' exists already: choose another name$"
    ),
}


@pytest.mark.parametrize("content", MODULES)
@pytest.mark.parametrize("as_file", [True, False])
def test_an_error_in_a_module_says_where(fork, tmp_path, content, as_file):
    (tmp_path / "parts.py").write_text(content)
    outcome = fork("test.py", "--import", "parts.py" if as_file else "parts", PYTHONPATH=str(tmp_path))
    assert outcome.status == 1
    (line,) = outcome.err.splitlines()
    assert re.search(MODULES[content], line)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--import", "none.py"], "--import none.py: there is no such file$"),
        (["--import", "none"], "--import none: No module named 'none'; expected a .py file, or a module on PYTHONPATH"),
        (["--import", "random.py"], "there is another module random, .*random.py: rename the file$"),
        (["--import"], "--import: expected a module or a .py file"),
    ],
)
def test_a_module_that_cannot_be_found(fork, tmp_path, args, message):
    (tmp_path / "random.py").touch()
    outcome = fork("visualizations.py", *args)
    assert outcome.status == 1
    (line,) = outcome.err.splitlines()
    assert re.search(message, line)


@pytest.mark.parametrize("script", ["train.py", "test.py", "visualizations.py"])
def test_the_help_has_the_option_and_the_parts(fork, script):
    shown = fork(script, *IMPORT, "--help").out
    parts = {"train.py": ["laplace", "residual", "renyi", "Bars"], "visualizations.py": ["posterior_scales", "--bins"]}
    assert [part for part in ("--import", *parts.get(script, ())) if part not in shown] == []


@pytest.fixture
def tables(monkeypatch):
    """Undoes what a test registers."""
    for module, name in (
        (datamodules, "DATASETS"),
        (figures, "FIGURES"),
        (vae.model, "LIKELIHOODS"),
        (vae.model, "NETWORKS"),
        (vae.objectives, "OBJECTIVES"),
    ):
        monkeypatch.setattr(module, name, dict(getattr(module, name)))


class OwnLikelihood(MeanLikelihood):
    def forward(self, features):
        return Independent(Laplace(self.logits(features).sigmoid(), 0.1), 3)

    def log_prob_kind(self, binary):
        return "log-density"


class OwnEncoder(MLPEncoder):
    def __init__(self, image_shape, depth: int = 3):
        super().__init__(image_shape, (8,) * depth, "tanh")


def test_a_vae_takes_classes_and_modules():
    encoder = OwnEncoder((1, 4, 4))
    model = VAE((1, 4, 4), network=(encoder, MLPDecoder), likelihood=OwnLikelihood)
    assert model.encoder is encoder
    assert isinstance(model.likelihood, OwnLikelihood)
    model.elbo(torch.rand(3, 1, 4, 4)).elbo.sum().backward()
    assert isinstance(VAE((1, 4, 4), network=(OwnEncoder, MLPDecoder)).encoder, OwnEncoder)
    assert isinstance(model.encoder[1][0], nn.Linear)


@pytest.mark.parametrize("part", [{"likelihood": OwnLikelihood}, {"network": (OwnEncoder, MLPDecoder)}])
def test_a_lit_vae_asks_for_a_name(part):
    (name,) = part
    message = rf"{name}: a checkpoint keeps names only; call vae.register_{name}\(NAME, ...\), then {name}=NAME"
    with pytest.raises(ValueError, match=message):
        LitVAE(image_shape=(1, 4, 4), **part)


def test_registered_names_make_a_model(tables):
    register_likelihood("own", OwnLikelihood)
    register_network("own", OwnEncoder, MLPDecoder)
    lit = LitVAE(image_shape=(1, 4, 4), likelihood="own", network="own")
    assert (type(lit.vae.likelihood), type(lit.vae.encoder)) == (OwnLikelihood, OwnEncoder)
    assert lit.hparams["likelihood"] == lit.hparams["network"] == "own"


@pytest.mark.parametrize(
    "wrong", [lambda bound: bound, lambda bound: (bound.mean(), {"own": bound}), lambda bound: (bound, {})]
)
def test_what_an_objective_must_return(tables, wrong):
    register_objective("own", lambda vae, x, noise, options: wrong(vae.elbo(x, eps=noise.eps).elbo))
    lit = LitVAE(image_shape=(1, 4, 4), objective="own")
    noise = StepNoise((1, 3, 2), (0, 0, 0), 0, torch.device("cpu"))
    with pytest.raises(ValueError, match="objective own: expected what it raises and a dict of what is logged"):
        lit.loss(torch.rand(3, 1, 4, 4), noise, 1.0)


@pytest.mark.parametrize(
    "register",
    [
        lambda: register_likelihood("bernoulli", OwnLikelihood),
        lambda: register_network("mlp", OwnEncoder, MLPDecoder),
        lambda: register_objective("elbo", vae.objectives.iwae),
        lambda: register_figure(figures.FIGURES["samples"]),
        lambda: register_dataset(Digits),
    ],
)
def test_a_name_is_registered_once(register):
    with pytest.raises(ValueError, match=r"the .* '\w+' exists already: choose another name"):
        register()


def needs_an_option(vae, *, weather):
    pass


def takes_an_input_for_an_option(vae, *, images: int = 3):
    pass


class WithoutKind(Likelihood):
    pass


@pytest.mark.parametrize(
    ("register", "message"),
    [
        (lambda: register_likelihood("own", int), "expected a subclass of vae.likelihoods.Likelihood"),
        (lambda: register_likelihood("own", WithoutKind), "WithoutKind has no log_prob_kind"),
        (lambda: register_network("own", OwnEncoder, 3), "expected two classes of modules"),
        (lambda: register_objective("own", 3), "expected a function of vae, x, noise and options, got 3"),
        (lambda: register_dataset(int), "expected a subclass of datamodules.ImageDataModule"),
        (lambda: register_figure(needs_an_option), "option weather needs a default"),
        (lambda: register_figure(takes_an_input_for_an_option), "option images needs .* a name of its own"),
    ],
)
def test_what_is_no_part_is_refused(tables, register, message):
    with pytest.raises(ValueError, match=message):
        register()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"network": (nn.Flatten, MLPDecoder)}, "Flatten has no out_features"),
        ({"network": (OwnEncoder, nn.Identity)}, "Identity has no output_layer"),
        ({"likelihood": nn.Identity()}, "Identity has no num_parameters"),
    ],
)
def test_a_part_that_lacks_what_the_others_need(parts, message):
    with pytest.raises(ValueError, match=message):
        VAE(image_shape=(1, 4, 4), **parts)


def test_an_argument_of_a_figure_that_nobody_provides(tables):
    @register_figure
    def own(vae, weather):
        pass

    with pytest.raises(ValueError, match="unknown argument of a figure 'weather': choose one of source, vae"):
        figures.render("own", {"vae": lambda: None, "source": dict})


@pytest.mark.parametrize(
    "args", [("--data", "Bars"), ("--model.likelihood", "laplace"), ("--model.objective", "renyi")]
)
def test_the_command_line_says_how_to_bring_a_part(fork, args):
    outcome = fork("train.py", *args)
    assert outcome.status == 2
    assert "one of your own needs --import MODULE" in outcome.err


def test_an_option_that_two_figures_have(fork, tmp_path):
    code = (
        "from vae.figures import register_figure\n@register_figure\ndef mine(vae, *, grid_size: int = 3):\n    pass\n"
    )
    (tmp_path / "parts.py").write_text(code)
    outcome = fork("visualizations.py", "--import", "parts.py")
    assert outcome.status == 1
    assert re.search("the options of mine: .*'--grid_size' already exists", outcome.err)
