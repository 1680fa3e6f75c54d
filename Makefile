# Two commands: `make demo` shows what the project does, `make test` whether it does it right
# (`make test-all` runs the tests that take long, `make test-browser` those of the explorer in a browser).

PYTHON ?= python3
BIN := .venv/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

.PHONY: bench bench-gpu demo gallery paper results test test-all test-browser

demo: .venv/installed
	$(BIN)/python train.py --data Digits --data.batch_size 32 --trainer.max_epochs 100
	$(BIN)/python test.py
	$(BIN)/python visualizations.py
	@echo
	@echo "Trained, tested and drawn: the run is in lightning_logs/, its figures are in visualization_imgs/."
	@echo "Next, after 'source .venv/bin/activate':"
	@echo "  tensorboard --logdir lightning_logs        curves and images, epoch by epoch"
	@echo "  python3 train.py                           the paper's model on MNIST (fetched, 12 MB)"
	@echo "  python3 train.py --data CryptoPunks        on 10,000 punks (fetched, 1 MB)"
	@echo "And open in a browser, to explore the latent space with the mouse:"
	@echo "  $(CURDIR)/visualization_imgs/digits_explorer_latent_variables=2.html"

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) -m "not slow"

test-all: .venv/installed-dev
	$(PYTEST) -m slow

test-browser: .venv/installed-browser
	$(PYTEST) -m browser tests/explorer

bench: .venv/installed-bench
	$(BIN)/python benchmarks/start.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/scale.py

bench-gpu: .venv/installed
	$(BIN)/python benchmarks/gpu.py

results: .venv/installed
	$(BIN)/python results/table.py > RESULTS.md

paper: .venv/installed
	$(BIN)/python paper/figure_2.py --samples 300000 --seeds 1
	$(BIN)/python paper/figure_4.py --samples 300000
	$(BIN)/python paper/figure_5.py --samples 300000
	$(BIN)/python paper/figure_3.py --samples 100000 --seeds 1 --num_images 100 --num_integrated 20

GALLERY := visualization_imgs/gallery
DRAW := $(BIN)/python visualizations.py --output_dir $(GALLERY)

gallery: .venv/installed-browser
	$(DRAW) --ckpt_path pretrained/mnist_2d.ckpt --figures learned_manifold latent_scatter
	$(DRAW) --ckpt_path pretrained/mnist_20d.ckpt --figures reconstruction samples traversals
	$(DRAW) --ckpt_path pretrained/punks_2d.ckpt --figures learned_manifold
	$(DRAW) --ckpt_path pretrained/punks_20d.ckpt --figures reconstruction samples traversals interpolations
	test -d lightning_logs/gallery_film || $(BIN)/python train.py --run_name gallery_film --trainer.max_epochs 12 --model.lr_schedule cosine
	$(DRAW) --ckpt_path gallery_film --figures training_film
	$(BIN)/python visualizations.py --ckpt_path pretrained/mnist_2d.ckpt --figures explorer
	$(BIN)/python tests/explorer/record.py visualization_imgs/MNIST_explorer_latent_variables=2.html $(GALLERY)/explorer.gif
	$(BIN)/python -c "import pathlib, oxipng; [oxipng.optimize(path) for path in pathlib.Path('$(GALLERY)').glob('*.png')]"

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements.txt
	touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	$(BIN)/pip install --quiet --requirement requirements-dev.txt
	touch $@

.venv/installed-browser: tests/explorer/requirements.txt .venv/installed-dev
	$(BIN)/pip install --quiet --requirement tests/explorer/requirements.txt
	tests/explorer/install_chromium.sh
	touch $@

.venv/installed-bench: benchmarks/requirements.txt .venv/installed
	$(BIN)/pip install --quiet --requirement benchmarks/requirements.txt
	touch $@
