"""torchvision's transforms, also where torchvision was built for another torch."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
_stubs: list[Any] = []  # an operator is gone as soon as its library is


def transforms() -> Any:
    """torchvision.transforms.v2, or a skipped test where there is no torchvision.

    Without its compiled operators, `import torchvision` fails as it describes two of them to
    torch. No transform uses them, so declaring their signatures is enough.
    """
    try:
        return pytest.importorskip("torchvision.transforms.v2", exc_type=ModuleNotFoundError)
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _stubs.append(library)
        return pytest.importorskip("torchvision.transforms.v2", exc_type=ModuleNotFoundError)
