"""Training on a memory-mapped file needs no more memory where the file is larger."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PEAK = """
import resource, sys
import numpy as np, tinynet as tn

rows = int(sys.argv[2])
x = np.lib.format.open_memmap(sys.argv[1], mode="w+", dtype=np.float32, shape=(rows, 1024))
for i in range(0, rows, 1024):
    x[i : i + 1024] = 0.5
    x.flush()
del x
x, y = np.load(sys.argv[1], mmap_mode="r"), np.zeros((rows, 2), np.float32)
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
with open("/proc/self/clear_refs", "w") as refs:
    refs.write("5")
before = peak()
net, loss, metrics = tn.Sequential(tn.Linear(1024, 2)), tn.SquaredError("mean"), {"max": lambda a, _: a.max()}
tn.fit(net, loss, x, y, optimizer=tn.SGD(1e-4), epochs=2, batch_size=64)
tn.fit(net, loss, x, y, optimizer=tn.SGD(1e-4), epochs=2, batch_size=64, shuffle=False, metrics=metrics)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the peak from Linux's /proc")
def test_peak_memory_stays_flat_as_a_mapped_file_grows(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}

    def added_mib(rows: int) -> float:
        path = tmp_path / "x.npy"
        command = [sys.executable, "-c", PEAK, str(path), str(rows)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=True)
        path.unlink()
        return float(done.stdout.split()[-1])

    small, large = added_mib(2**15), added_mib(2**17)  # files of 128 and 512 MiB
    assert large < min(small + 64, 224), (small, large)
