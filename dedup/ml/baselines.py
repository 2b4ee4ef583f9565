"""What a cross-encoder must be better than: words alone."""

from collections.abc import Sequence

import numpy as np

from dedup.ml.pairs import Pair


def tfidf_cosines(pairs: Sequence[Pair]) -> np.ndarray:
    """(n,) cosine of words weighed by rarity (Sparck Jones 1972), fitted on these texts alone."""
    # scikit-learn comes with the extra `train`; a worker has none.
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415

    texts = sorted({text for pair in pairs for text in (pair.older, pair.newer)})
    at = {text: i for i, text in enumerate(texts)}
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)).fit_transform(texts)
    older = words[[at[p.older] for p in pairs]]
    newer = words[[at[p.newer] for p in pairs]]
    return np.asarray(older.multiply(newer).sum(axis=1)).ravel()
