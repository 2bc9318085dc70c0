"""A replica's share of a GPU. How it gets one from a broker is in `tests/system/test_gpus.py`."""

import pytest

from modelserver.gpu import OVERHEAD_MIB, GpuError, share_mib

GIB = 1 << 30


def test_a_gpu_is_divided_by_those_that_may_share_it() -> None:
    assert share_mib(16 * GIB, 0) is None
    assert share_mib(16 * GIB, 1) == 16 * 1024 - OVERHEAD_MIB
    for replicas in (2, 3, 8):
        share = share_mib(16 * GIB, replicas)
        assert share is not None
        assert replicas * (share + OVERHEAD_MIB) <= 16 * 1024


def test_what_leaves_nothing_to_compute_with_is_refused() -> None:
    with pytest.raises(GpuError, match=r"MODEL_REPLICAS_PER_GPU cannot be 8: a GPU of 4\.0 GiB"):
        share_mib(4 * GIB, 8)
