"""Several nets as one: their probabilities are averaged."""

from collections.abc import Iterator, Sequence

import numpy as np

from resnet_jax.data.data_error import DataError
from resnet_jax.evaluation.scoring import Scores


def average_members(members: Sequence[Iterator[Scores]]) -> Iterator[Scores]:
    """Yields the scores of an ensemble: of each example the mean over the members of their probabilities.

    One member's scores are passed on as they come. Those of several are computed one member after the other,
    and summed in an array of examples × classes.

    Args:
        members: Scores of the same examples by each.
    """
    if len(members) == 1:
        yield from members[0]
        return
    total = concatenate_scores(members[0])
    for member in members[1:]:
        scores = concatenate_scores(member)
        if not (
            np.array_equal(scores.numbers, total.numbers) and np.array_equal(scores.labels, total.labels)
        ):
            raise DataError(
                "the nets of an ensemble must be evaluated on the same examples, and the labels of theirs "
                "differ"
            )
        np.logaddexp(total.log_probabilities, scores.log_probabilities, out=total.log_probabilities)
    yield total._replace(log_probabilities=total.log_probabilities - np.float32(np.log(len(members))))


def concatenate_scores(scores: Iterator[Scores]) -> Scores:
    """Returns all scores at once, in the order of the examples, with log-probabilities in float32."""
    parts = [part._replace(log_probabilities=part.log_probabilities.astype(np.float32)) for part in scores]
    whole = Scores(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    order = np.argsort(whole.numbers)
    return Scores(*(column[order] for column in whole))
