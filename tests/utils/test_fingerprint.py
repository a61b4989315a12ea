import numpy as np
from datasets import Array2D, Dataset, Features, Value, concatenate_datasets

from sage_hf.utils.fingerprint import dataset_digest


def test_a_digest_tells_rows_and_not_the_chunks_that_they_lie_in():
    features = Features({"image": Array2D((3, 4), "float32"), "text": Value("string")})
    images = np.random.default_rng(0).normal(size=(50, 3, 4)).astype(np.float32)
    texts = [None if number == 7 else f"text {number}" for number in range(50)]
    whole = Dataset.from_dict({"image": images, "text": texts}, features=features)
    parts = concatenate_datasets([whole.select(range(start, start + 5)) for start in range(0, 50, 5)])
    assert dataset_digest(whole) == dataset_digest(parts) == dataset_digest(whole.select(range(50)).flatten_indices())
    assert dataset_digest(whole) != dataset_digest(whole.select([1, 0, *range(2, 50)]))
