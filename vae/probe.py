"""How much of the labels is in the codes: the accuracy of simple classifiers of posterior means."""

from math import nan

from torch import Tensor

MAX_IMAGES = 10_000  # of the training images


def probe_codes(train: Tensor, train_labels: Tensor, tested: Tensor, labels: Tensor) -> dict[str, float]:
    """The share of the tested codes whose label a classifier finds that was fitted to the training codes.

    No number where a code is none.

    `probe_linear` is a multinomial logistic regression on standardised codes, with scikit-learn's L2 penalty of 1;
    `probe_nearest_neighbour` takes the label of the nearest training code.

    Args:
        train: codes [N, Z].
        train_labels: their labels [N], of two classes at least.
        tested: codes [M, Z].
        labels: their labels [M].
    """
    from sklearn.linear_model import LogisticRegression  # here: the import takes a second
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifiers = {
        "probe_linear": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000)),
        "probe_nearest_neighbour": KNeighborsClassifier(n_neighbors=1),
    }
    if not (train.isfinite().all() and tested.isfinite().all()):
        return dict.fromkeys(classifiers, nan)
    return {
        name: float(classifier.fit(train, train_labels).score(tested, labels))
        for name, classifier in classifiers.items()
    }
