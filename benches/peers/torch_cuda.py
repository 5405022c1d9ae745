"""A peers' script of PyTorch, run on the first CUDA device: `python torch_cuda.py PATH/torch_bench.py WORKLOAD …`.

The script itself knows only the CPU. Here its new tensors live on the GPU, and a sample is timed as tapeflow's are: at
most two are in flight, and no time is taken before the work of the last one has ended. Products stay in f32 (no TF32).
"""
import runpy
import sys
import time
import warnings
from pathlib import Path

script = Path(sys.argv[1]).resolve()
sys.argv = [str(script), *sys.argv[2:]]
sys.path.insert(0, str(script.parent))

import common
import torch

if not torch.cuda.is_available():
    sys.exit("torch_cuda.py: this PyTorch has no CUDA device")
torch.cuda.init()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    # Unlike set_default_device, this adds no Python code to every call; it also moves index tensors.
    if hasattr(torch, "set_default_tensor_type"):
        torch.set_default_tensor_type(torch.cuda.FloatTensor)
    else:
        torch.set_default_device("cuda")
torch.backends.cuda.matmul.allow_tf32 = False


def times(self, fn, iters=None, inner=1):
    """Seconds per call, as in `common.Bench.times`; each sample waits for the end of the one before it."""
    a = self.a
    for _ in range(a.warmup):
        fn()
    torch.cuda.synchronize()
    last = torch.cuda.Event()
    want, out, t0 = iters or a.iters, [], time.perf_counter()
    all0, own0 = common.busy()
    s = t0
    while True:
        for _ in range(inner):
            fn()
        this = torch.cuda.Event()
        this.record()
        last.synchronize()
        last = this
        e = time.perf_counter()
        out.append((e - s) / inner)
        s, spent = e, e - t0
        if len(out) > want and spent >= a.seconds or spent >= a.max_seconds and len(out) > 3:
            break
    last.synchronize()
    all1, own1 = common.busy()
    self.other = max(0.0, (all1 - all0) - (own1 - own0)) / spent
    return out[1:]  # the first waited for nothing


def emit(self, *args, original=common.Bench.emit, **extra):
    original(self, *args, device="cuda", device_name=torch.cuda.get_device_name(), **extra)


common.Bench.times, common.Bench.emit = times, emit
runpy.run_path(str(script), run_name="__main__")
