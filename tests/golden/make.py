"""Makes the golden files beside this script: what PyTorch computes, for tests/golden.rs to compare with.

  python tests/golden/make.py          # needs torch, numpy, safetensors; any machine, no GPU

gpt.safetensors, mlp.safetensors: ten AdamW steps. `initial.PATH` (f32, exact in f64 too), `final.PATH` (f64), the inputs of
each step, `losses.f64`, `losses.f32`, `norms.f64` (global gradient norms before clipping).
ops.safetensors, images.safetensors: one op each, f64. `NAME.input.I`, `NAME.output`, `NAME.cotangent`, `NAME.gradient.I`.
half.safetensors: conversions and single operations in float16 and bfloat16, as the bits of their results (i64).
layers.safetensors: whole layers, f64. `NAME.parameter.PATH`, `NAME.input.I`, `NAME.output.K`, `NAME.cotangent.K`, and for all
parameters and float inputs `NAME.gradient.PATH`, `NAME.gradient.I`.
images.safetensors also has `batches` and the `running_mean`, `running_var` that batch normalisation has after them.
made.json: versions and seed. Everything is drawn from numpy's PCG64, so a file changes only if this script or
PyTorch's arithmetic does.
"""
import json
import math
import pathlib
import platform

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

SEED = 20260101
STEPS = 10
HERE = pathlib.Path(__file__).parent
VOCAB, BLOCK, EMBD, HEADS, LAYERS, BATCH = 31, 16, 32, 4, 2, 4
MLP_SIZES, MLP_BATCH = (20, 32, 32, 5), 16

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)


def linear(rng, path, outputs, inputs, std):
    return {path + ".weight": rng.standard_normal((outputs, inputs)) * std, path + ".bias": rng.standard_normal(outputs) * 0.02}


def norm(rng, path):
    """Away from ones and zeros, so that a swapped weight and bias cannot pass."""
    return {path + ".weight": 1 + 0.1 * rng.standard_normal(EMBD), path + ".bias": 0.1 * rng.standard_normal(EMBD)}


def gpt_initial(rng):
    p = {"wte.weight": rng.standard_normal((VOCAB, EMBD)) * 0.2, "wpe.weight": rng.standard_normal((BLOCK, EMBD)) * 0.1}
    for i in range(LAYERS):
        h = "h.%d." % i
        p |= norm(rng, h + "ln_1") | linear(rng, h + "attn.c_attn", 3 * EMBD, EMBD, 0.2)
        p |= linear(rng, h + "attn.c_proj", EMBD, EMBD, 0.1) | norm(rng, h + "ln_2")
        p |= linear(rng, h + "mlp.c_fc", 4 * EMBD, EMBD, 0.2) | linear(rng, h + "mlp.c_proj", EMBD, 4 * EMBD, 0.1)
    return p | norm(rng, "ln_f")


def gpt_loss(p, tokens):
    """tokens: (B, T+1). The model of GPT-2 with tied embeddings, tanh GELU and biases."""
    x, y = tokens[:, :-1], tokens[:, 1:]
    b, t = x.shape
    affine = lambda path, x: F.linear(x, p[path + ".weight"], p[path + ".bias"])
    normed = lambda path, x: F.layer_norm(x, (EMBD,), p[path + ".weight"], p[path + ".bias"], 1e-5)
    x = p["wte.weight"][x] + p["wpe.weight"][:t]
    mask = torch.ones(t, t, dtype=torch.bool).tril()
    for i in range(LAYERS):
        h = "h.%d." % i
        q, k, v = affine(h + "attn.c_attn", normed(h + "ln_1", x)).split(EMBD, -1)
        q, k, v = (a.view(b, t, HEADS, EMBD // HEADS).transpose(1, 2) for a in (q, k, v))  # (B, nh, T, hs)
        scores = (q @ k.transpose(-2, -1) / math.sqrt(EMBD // HEADS)).masked_fill(~mask, -math.inf)
        x = x + affine(h + "attn.c_proj", (scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, EMBD))
        x = x + affine(h + "mlp.c_proj", F.gelu(affine(h + "mlp.c_fc", normed(h + "ln_2", x)), approximate="tanh"))
    logits = normed("ln_f", x) @ p["wte.weight"].T
    return F.cross_entropy(logits.reshape(-1, VOCAB), y.reshape(-1))


def mlp_initial(rng):
    p = {}
    for i, (inputs, outputs) in enumerate(zip(MLP_SIZES, MLP_SIZES[1:])):
        p |= linear(rng, "layers.%d" % i, outputs, inputs, 1.0 / math.sqrt(inputs))
    return p


def mlp_loss(p, x, y):
    affine = lambda i, x: F.linear(x, p["layers.%d.weight" % i], p["layers.%d.bias" % i])
    return F.cross_entropy(affine(2, affine(1, affine(0, x).tanh()).relu()), y)


def train(dtype, initial, loss_fn, batches):
    """(losses, gradient norms, final parameters) of STEPS steps; only matrices decay."""
    p = {k: v.to(dtype).clone().requires_grad_() for k, v in initial.items()}
    groups = [dict(params=[v for v in p.values() if v.dim() >= 2], weight_decay=0.1),
              dict(params=[v for v in p.values() if v.dim() < 2], weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), eps=1e-8, foreach=False, fused=False)
    losses, norms = [], []
    for batch in batches:
        optimizer.zero_grad()
        loss = loss_fn(p, *(b.to(dtype) if b.is_floating_point() else b for b in batch))
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(p.values(), 1.0, foreach=False).item())
        optimizer.step()
        losses.append(loss.item())
    return losses, norms, {k: v.detach() for k, v in p.items()}


def write_training(name, initial, loss_fn, inputs):
    initial = {k: torch.tensor(v, dtype=torch.float32) for k, v in initial.items()}
    batches = list(zip(*inputs.values()))
    losses, norms, final = train(torch.float64, initial, loss_fn, batches)
    losses32, _, _ = train(torch.float32, initial, loss_fn, batches)
    tensors = {"initial." + k: v for k, v in initial.items()} | {"final." + k: v for k, v in final.items()} | inputs
    tensors |= {"losses.f64": torch.tensor(losses, dtype=torch.float64), "losses.f32": torch.tensor(losses32, dtype=torch.float32),
                "norms.f64": torch.tensor(norms, dtype=torch.float64)}
    write(name, tensors)
    assert max(norms) > 1.0, "no step was clipped: the golden would not test clipping"
    print("%s: losses %s, norms %s" % (name, " ".join("%.6f" % x for x in losses), " ".join("%.3f" % x for x in norms)))


def ops(rng):
    """name -> (function, inputs). Integer inputs get no gradient."""
    f = lambda *s: torch.tensor(rng.standard_normal(s))
    i = lambda hi, *s: torch.tensor(rng.integers(0, hi, s))

    def attention(q, k, v):
        t = q.shape[-2]
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        return scores.masked_fill(~torch.ones(t, t, dtype=torch.bool).tril(), -math.inf).softmax(-1) @ v

    return {
        "layer_norm": (lambda x, w, b: F.layer_norm(x, (12,), w, b, 1e-5), [f(3, 5, 12), f(12), f(12)]),
        "layer_norm_no_bias": (lambda x, w: F.layer_norm(x, (12,), w, None, 1e-5), [f(4, 12), f(12)]),
        "softmax": (lambda x: x.softmax(-1), [f(4, 9) * 3]),
        "softmax_axis_0": (lambda x: x.softmax(0), [f(4, 9) * 3]),
        "log_softmax": (lambda x: x.log_softmax(-1), [f(4, 9) * 3]),
        "cross_entropy": (lambda x, y: F.cross_entropy(x, y), [f(8, 7) * 2, i(7, 8)]),
        "gelu": (lambda x: F.gelu(x, approximate="tanh"), [f(40) * 3]),
        "silu": (F.silu, [f(40) * 3]),
        "sigmoid": (torch.sigmoid, [f(40) * 4]),
        "tanh": (torch.tanh, [f(40) * 2]),
        "var": (lambda x: x.var(-1, correction=0), [f(5, 11)]),
        "var_unbiased": (lambda x: x.var((0, 2), correction=1, keepdim=True), [f(3, 4, 5)]),
        "matmul": (torch.matmul, [f(5, 7), f(7, 3)]),
        "matmul_broadcast": (torch.matmul, [f(2, 1, 4, 6), f(3, 6, 5)]),
        "matmul_vector": (torch.matmul, [f(2, 4, 6), f(6)]),
        "embedding": (lambda w, x: F.embedding(x, w), [f(9, 4), i(9, 3, 5)]),
        "gather": (lambda x, y: x.gather(1, y), [f(4, 6), i(6, 4, 3)]),
        "mse_loss": (F.mse_loss, [f(6, 3), f(6, 3)]),
        "max": (lambda x: x.amax(-1), [f(6, 8)]),
        "causal_attention": (attention, [f(2, 3, 6, 4), f(2, 3, 6, 4), f(2, 3, 6, 4)]),
    }


def image_ops(rng):
    """As `ops`: convolutions, pools and norms in many settings."""
    f = lambda *s: torch.tensor(rng.standard_normal(s))
    with_affine = lambda norm: lambda x, w, b: norm(x) * w.view(1, -1, 1, 1) + b.view(1, -1, 1, 1)
    conv = lambda function, x, w, **options: (lambda x, w: function(x, w, **options), [f(*x), f(*w)])
    pool = lambda function, x, *window, **options: (lambda x: function(x, *window, **options), [f(*x)])
    ties = torch.tensor(rng.integers(0, 3, (2, 2, 6, 7)).astype(float))
    return {
        "conv1d": conv(F.conv1d, (2, 3, 9), (4, 3, 3), stride=2, padding=1),
        "conv1d_dilation": conv(F.conv1d, (2, 4, 11), (6, 2, 3), padding=2, dilation=3, groups=2),
        "conv2d": conv(F.conv2d, (2, 3, 6, 7), (4, 3, 3, 2)),
        "conv2d_padding": conv(F.conv2d, (2, 3, 5, 5), (4, 3, 3, 3), padding=1),
        "conv2d_stride": conv(F.conv2d, (2, 3, 8, 9), (5, 3, 3, 3), stride=(2, 3), padding=(1, 2)),
        "conv2d_dilation": conv(F.conv2d, (2, 2, 9, 8), (3, 2, 3, 2), padding=(2, 1), dilation=(2, 3), stride=(1, 2)),
        "conv2d_groups": conv(F.conv2d, (2, 6, 6, 5), (4, 3, 3, 3), padding=1, groups=2),
        "conv2d_depthwise": conv(F.conv2d, (2, 4, 6, 6), (8, 1, 3, 3), padding=1, stride=2, groups=4),
        "conv2d_pointwise": conv(F.conv2d, (2, 5, 5, 4), (3, 5, 1, 1), stride=2),
        "conv_transpose1d": conv(F.conv_transpose1d, (2, 4, 5), (4, 2, 3), stride=3, padding=1, output_padding=2, groups=2),
        "conv_transpose2d": conv(F.conv_transpose2d, (2, 3, 4, 3), (3, 4, 3, 2)),
        "conv_transpose2d_stride": conv(F.conv_transpose2d, (2, 3, 4, 3), (3, 4, 3, 3), stride=2, padding=1, output_padding=1),
        "conv_transpose2d_dilation": conv(F.conv_transpose2d, (2, 4, 3, 4), (4, 3, 2, 3), dilation=2, padding=(1, 2), groups=2),
        "max_pool1d": pool(F.max_pool1d, (2, 3, 10), 3, stride=2, padding=1),
        "max_pool2d": pool(F.max_pool2d, (2, 3, 7, 6), 2),
        "max_pool2d_overlap": pool(F.max_pool2d, (2, 3, 7, 8), 3, stride=2, padding=1),
        "max_pool2d_ties": (lambda x: F.max_pool2d(x, (3, 2), stride=1, padding=(1, 0)), [ties]),
        "avg_pool1d": pool(F.avg_pool1d, (2, 3, 10), 3, stride=2, padding=1),
        "avg_pool2d": pool(F.avg_pool2d, (2, 3, 7, 6), (3, 2), stride=(2, 1), padding=(1, 0)),
        "adaptive_avg_pool2d": pool(F.adaptive_avg_pool2d, (2, 3, 7, 6), (3, 4)),
        "adaptive_avg_pool1d": pool(F.adaptive_avg_pool1d, (2, 3, 8), 3),
        "batch_norm": (with_affine(lambda x: F.batch_norm(x, None, None, training=True)), [f(4, 3, 5, 4) * 2 + 1, f(3), f(3)]),
        "batch_norm_eval": (lambda x: F.batch_norm(x, torch.tensor([0.5, -1.0, 2.0]).double(), torch.tensor([0.5, 4.0, 1.0]).double()),
                            [f(4, 3, 5, 4)]),
        "group_norm": (with_affine(lambda x: F.group_norm(x, 2)), [f(2, 6, 3, 4) * 2 + 1, f(6), f(6)]),
        "upsample_nearest": (lambda x: F.interpolate(x, scale_factor=(2, 3), mode="nearest"), [f(2, 3, 3, 4)]),
    }


def running_statistics(rng):
    """What two batches leave in a batch normalisation of momentum 0.3."""
    norm = torch.nn.BatchNorm2d(3, momentum=0.3).double()
    batches = torch.tensor(rng.standard_normal((2, 4, 3, 2, 5))) * 2 + 1
    for batch in batches:
        norm(batch)
    return {"batches": batches, "running_mean": norm.running_mean, "running_var": norm.running_var}


def half(rng):
    """Conversions of every kind of number, and operations on every 257th pattern and 16 other numbers."""
    bits = lambda x: x.contiguous().view(torch.int16).to(torch.int64) & 0xffff
    edges = np.array([0.0, -0.0, 1.0, np.inf, -np.inf, np.nan, 65504.0, 65519.996, 65520.0, 65536.0, 2.0**-14, 2.0**-24, 2.0**-25,
                      3.0 * 2.0**-25, 2.0**-126, 2.0**-133, 2.0**-134, 3.0 * 2.0**-134, 3.3895314e38, 3.4028235e38, 1.0 + 2.0**-8,
                      1.0 + 2.0**-11, 1.0 + 3 * 2.0**-8, 1.0 + 3 * 2.0**-11, 1.0 + 2.0**-8 + 2.0**-30, 1.0 + 2.0**-11 + 2.0**-40])
    drawn = rng.integers(0, 2**32, 4000, dtype=np.uint32).view(np.float32)
    drawn = drawn[~np.isnan(drawn)].astype(np.float64)
    wide = torch.tensor(np.concatenate([edges, -edges, drawn, rng.standard_normal(2000)]))
    ints = torch.tensor(np.concatenate([[0, 1, -1, 257, 65519, 65520, (1 << 40) + (1 << 32) + 1, 2**62], rng.integers(-2**20, 2**20, 500)]))
    tensors = {"wide": wide, "ints": ints}
    for name, dtype in [("f16", torch.float16), ("bf16", torch.bfloat16)]:
        tensors[name + ".from_f32"] = bits(wide.to(torch.float32).to(dtype))
        tensors[name + ".from_f64"] = bits(wide.to(dtype))
        tensors[name + ".from_i64"] = bits(ints.to(dtype))
        patterns = torch.arange(0, 1 << 16, dtype=torch.int32).to(torch.int16).view(dtype)
        tensors[name + ".to_f32"] = torch.nan_to_num(patterns.to(torch.float32), 7.0, np.inf, -np.inf)
        some = patterns[::257]
        tensors[name + ".to_i32"] = torch.where(some.float().abs() < 2.0**31, some.float(), torch.zeros(())).to(dtype).to(torch.int32).to(torch.int64)
        x = some.reshape(-1, 1)
        y = torch.tensor(rng.standard_normal(16)).to(dtype)
        tensors[name + ".y"] = bits(y)
        for op, f in [("add", lambda a, b: a + b), ("sub", lambda a, b: a - b), ("mul", lambda a, b: a * b), ("div", lambda a, b: a / b),
                      ("number", lambda a, b: a * 0.1 + b)]:
            tensors[name + "." + op] = bits(f(x, y))
    return tensors


def layers(rng):
    """name -> (module, its inputs, how it is called)."""
    f = lambda *s: torch.tensor(rng.standard_normal(s))
    nn = torch.nn
    recurrent = lambda kind, *sizes, states=1, **options: (kind(*sizes, batch_first=True, **options), states)
    found = {}
    for name, (module, states) in {
        "rnn": recurrent(nn.RNN, 3, 4),
        "rnn_relu": recurrent(nn.RNN, 3, 4, nonlinearity="relu", num_layers=2, bias=False),
        "gru": recurrent(nn.GRU, 3, 4),
        "gru_deep": recurrent(nn.GRU, 3, 4, num_layers=2, bidirectional=True),
        "lstm": recurrent(nn.LSTM, 3, 4, states=2),
        "lstm_deep": recurrent(nn.LSTM, 3, 4, states=2, num_layers=2, bidirectional=True),
        "lstm_no_bias": recurrent(nn.LSTM, 3, 4, states=2, bias=False),
    }.items():
        rows = module.num_layers * (2 if module.bidirectional else 1)
        initial = [f(rows, 2, 4) for _ in range(states)]
        call = lambda m, x, *s: (lambda y, last: [y, *(last if isinstance(last, tuple) else [last])])(*m(x, s if len(s) > 1 else s[0]))
        found[name] = (module, [f(2, 6, 3), *initial], call)
    found["rms_norm"] = (nn.RMSNorm(5), [f(3, 4, 5)], lambda m, x: [m(x)])
    found["rms_norm_eps"] = (nn.RMSNorm(5, eps=0.1), [f(4, 5)], lambda m, x: [m(x)])
    attention = lambda **options: nn.MultiheadAttention(8, 2, batch_first=True, **options)
    weights = dict(need_weights=True, average_attn_weights=False)
    own = lambda m, x: list(m(x, x, x, **weights))
    cross = lambda m, q, k, v: list(m(q, k, v, **weights))
    unseen = lambda n: torch.ones(n, n, dtype=torch.bool).triu(1)
    padding = torch.tensor([[0, 0, 0, 0, 1], [0, 0, 0, 1, 1]], dtype=torch.bool)
    found["attention"] = (attention(), [f(2, 5, 8)], own)
    found["attention_causal"] = (attention(), [f(2, 5, 8)], lambda m, x: list(m(x, x, x, attn_mask=unseen(5), **weights)))
    found["attention_padding"] = (attention(bias=False), [f(2, 5, 8)], lambda m, x: list(m(x, x, x, key_padding_mask=padding, **weights)))
    found["attention_added"] = (attention(), [f(2, 5, 8), f(5, 5)], lambda m, x, a: list(m(x, x, x, attn_mask=a, **weights)))
    found["attention_cross"] = (attention(kdim=6, vdim=3), [f(2, 4, 8), f(2, 5, 6), f(2, 5, 3)], cross)
    return found


def write_layers(file, cases):
    tensors = {}
    for name, (module, inputs, call) in cases.items():
        module = module.double()
        parameters = dict(module.named_parameters())
        with torch.no_grad():
            for p in parameters.values():
                p.copy_(torch.tensor(rng.standard_normal(tuple(p.shape)) * 0.5))
        [x.requires_grad_() for x in inputs]
        outputs = call(module, *inputs)
        cotangents = [torch.tensor(rng.standard_normal(tuple(y.shape))) for y in outputs]
        gradients = torch.autograd.grad(outputs, [*parameters.values(), *inputs], cotangents)
        names = [*parameters, *map(str, range(len(inputs)))]
        tensors |= {"%s.gradient.%s" % (name, n): g for n, g in zip(names, gradients)}
        tensors |= {"%s.parameter.%s" % (name, n): p.detach() for n, p in parameters.items()}
        for kind, values in ("input", inputs), ("output", outputs), ("cotangent", cotangents):
            tensors |= {"%s.%s.%d" % (name, kind, n): v.detach() for n, v in enumerate(values)}
    write(file, tensors)


def write_ops(file, cases, tensors):
    for name, (function, inputs) in cases.items():
        floats = [x.requires_grad_() for x in inputs if x.is_floating_point()]
        y = function(*inputs)
        cotangent = torch.tensor(rng.standard_normal(tuple(y.shape)))
        gradients = iter(torch.autograd.grad(y, floats, cotangent))
        tensors |= {name + ".output": y.detach(), name + ".cotangent": cotangent}
        for n, x in enumerate(inputs):
            tensors["%s.input.%d" % (name, n)] = x.detach()
            if x.is_floating_point():
                tensors["%s.gradient.%d" % (name, n)] = next(gradients)
    write(file, tensors)


def write(name, tensors):
    path = HERE / (name + ".safetensors")
    save_file({k: v.contiguous() for k, v in sorted(tensors.items())}, path)
    path.chmod(0o644)


rng = np.random.default_rng(SEED)
write_training("gpt", gpt_initial(rng), gpt_loss, {"tokens": torch.tensor(rng.integers(0, VOCAB, (STEPS, BATCH, BLOCK + 1)))})
write_training("mlp", mlp_initial(rng), mlp_loss,
               {"x": torch.tensor(rng.standard_normal((STEPS, MLP_BATCH, MLP_SIZES[0])), dtype=torch.float32),
                "y": torch.tensor(rng.integers(0, MLP_SIZES[-1], (STEPS, MLP_BATCH)))})
write_ops("ops", ops(rng), {})
rng = np.random.default_rng([SEED, 1])
write_ops("images", image_ops(rng), running_statistics(rng))
write("half", half(np.random.default_rng([SEED, 2])))
rng = np.random.default_rng([SEED, 2])
write_layers("layers", layers(rng))
made = dict(seed=SEED, torch=torch.__version__.split("+")[0], numpy=np.__version__, python=platform.python_version(), machine=platform.machine())
(HERE / "made.json").write_text(json.dumps(made) + "\n")
