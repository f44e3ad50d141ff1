"""The memory that a piece of work holds at its peak, counted tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within `with`, the bytes of tensors made there that live at once.

    A storage counts from the operation that allocates it until nobody holds it. What
    was there before does not count, nor do buffers that an operation has for itself (a
    convolution's workspace): no tensor tells of them. The count is the same on every
    device, whatever else its allocator holds.

    Not for a backward pass that counts: within any such mode autograd adds gradients up
    into new tensors, whose layout may lead to other last bits later.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        """Bytes that live at present."""
        self.peak = 0
        """The most that lived at once."""
        self.paused = False
        """Whether what is allocated does not count."""
        self._known: dict[int, tuple[Any, int]] = {}
        """By the identity of a storage a weak reference to it, and its bytes."""

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.paused:
            before = {id(storage) for storage in _storages((args, kwargs))}
            for storage in _storages(result):
                if id(storage) in self._known or id(storage) not in before:
                    self._count(storage)
            self.peak = max(self.peak, self.now)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        """Take this storage up, or its new size."""
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            watch, known = self._known[key]
        else:
            watch, known = ref(storage, lambda _: self._forget(key)), 0
        self._known[key] = watch, size
        self.now += size - known

    def _forget(self, key: int) -> None:
        _, size = self._known.pop(key)
        self.now -= size


def _storages(values: object) -> Iterator[torch.UntypedStorage]:
    """Those of the plain tensors in nested collections; a sparse one has none."""
    for value in tree_iter(values):
        if isinstance(value, Tensor) and value.layout is torch.strided:
            yield value.untyped_storage()
