"""Networks: every module that imports torch or transformers is below this package."""

import os

# oneDNN keeps a kernel for each shape that it met, 1,024 of them unless told otherwise, torch as
# many around them: workers that read texts of all lengths grew by 750 MB in two minutes. With so
# many each is as fast, and stays as large as it is after some hundred texts.
KERNELS_KEPT = "64"

for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):  # read when torch loads
    os.environ.setdefault(name, KERNELS_KEPT)
