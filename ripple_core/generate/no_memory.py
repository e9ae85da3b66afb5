"""How torch, numpy and the system say that there was no memory."""

import errno

import torch

# torch's CPU allocator, the system, C++ and cuBLAS in errors of many types.
_SAID = ("can't allocate memory", "Cannot allocate memory", "std::bad_alloc", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is what an error says."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM
    return any(words in str(error) for words in _SAID)
