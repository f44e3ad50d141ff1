"""The models and pairs of this package."""

from __future__ import annotations

from functools import partial

from kdbench import Model, Pair
from kdbench_text.bag import Bag
from kdbench_text.convolutional import TextCNN
from kdbench_text.recurrent import BiLSTM
from kdbench_text.transformer import Transformer


def transformer(
    layers: int, width: int, heads: int, dropout: float = 0.1, word_dropout: float = 0.0
) -> Model:
    """The model `transformer_<layers>x<width>`."""
    return Model(
        name=f"transformer_{layers}x{width}",
        summary=f"Transformer encoder, {layers} layers of {width} in {heads} heads",
        build=partial(
            Transformer,
            layers=layers,
            width=width,
            heads=heads,
            dropout=dropout,
            word_dropout=word_dropout,
        ),
        taps={
            "embeddings": "embeddings",
            **{f"stage{n + 1}": f"layers.{n}" for n in range(layers)},
            **{
                f"attention{n + 1}": f"layers.{n}.attention.probabilities"
                for n in range(layers)
            },
            "scores": "scores",
            "pooled": "classifier:input",
        },
        classifier="classifier",
        tokens=True,
    )


def bilstm(
    embedding: int, width: int, dropout: float = 0.1, word_dropout: float = 0.0
) -> Model:
    """The model `bilstm_<width>`."""
    return Model(
        name=f"bilstm_{width}",
        summary=f"bidirectional LSTM of {width} units over vectors of {embedding}",
        build=partial(
            BiLSTM,
            embedding=embedding,
            width=width,
            dropout=dropout,
            word_dropout=word_dropout,
        ),
        taps={
            "embeddings": "embeddings",
            "stage1": "lstm",
            "pooled": "classifier:input",
        },
        classifier="classifier",
        tokens=True,
    )


def textcnn(
    embedding: int, filters: int, dropout: float = 0.5, word_dropout: float = 0.0
) -> Model:
    """The model `textcnn_<filters>`."""
    return Model(
        name=f"textcnn_{filters}",
        summary=f"CNN, {filters} filters each over 3, 4 and 5 vectors of {embedding}",
        build=partial(
            TextCNN,
            embedding=embedding,
            filters=filters,
            dropout=dropout,
            word_dropout=word_dropout,
        ),
        taps={
            "embeddings": "embeddings",
            "stage1": "filters",
            "pooled": "classifier:input",
        },
        classifier="classifier",
        tokens=True,
    )


def bag(width: int, dropout: float = 0.0, word_dropout: float = 0.0) -> Model:
    """The model `bag_<width>`."""
    return Model(
        name=f"bag_{width}",
        summary=f"the mean of word vectors of {width}, and a linear classifier",
        build=partial(Bag, width=width, dropout=dropout, word_dropout=word_dropout),
        taps={"embeddings": "embeddings", "pooled": "classifier:input"},
        classifier="classifier",
        tokens=True,
    )


MODELS = (
    # The first of each family is regularised, as a teacher should be.
    transformer(2, 64, 4, dropout=0.1, word_dropout=0.3),
    transformer(1, 32, 4),
    transformer(1, 8, 2, dropout=0.0),
    bilstm(64, 32, dropout=0.2, word_dropout=0.3),
    bilstm(8, 8, dropout=0.0),
    textcnn(64, 32, dropout=0.5, word_dropout=0.3),
    textcnn(8, 4, dropout=0.0),
    bag(64, dropout=0.5, word_dropout=0.3),
)

PAIRS = (
    Pair(
        name="sst2-transformer",
        teachers=("transformer_2x64",),
        students=("transformer_1x8",),
        summary="a Transformer to one of half the layers and an eighth of the width",
    ),
    Pair(
        name="sst2-bilstm",
        teachers=("transformer_2x64",),
        students=("bilstm_8",),
        summary="a Transformer to a recurrent student",
    ),
    Pair(
        name="sst2-cnn",
        teachers=("bag_64",),
        students=("textcnn_4",),
        summary="a mean of word vectors to a convolutional student an eighth as large",
    ),
)
