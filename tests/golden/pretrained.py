"""Makes the folders in pretrained/ beside this script: what transformers computes, for tests/pretrained.rs to compare with.

  python tests/golden/pretrained.py    # needs torch, numpy, safetensors, tokenizers, transformers; any machine, no GPU
  python tests/golden/pretrained.py --gpt2 DIR [--dtype bfloat16]    # the same at GPT-2's own size, into DIR, by hand

Each folder is a randomly initialised GPT-2 as transformers saves it, with a byte-level BPE trained on TEXT below.
  small: a model with a head, one file. bare: without its head, its tensors in two files.
expected.json: `texts` with their token `ids`, and `greedy`: a prompt's ids and what transformers' `generate` appends.
expected.safetensors: `tokens` (B, T), `logits` (B, T, V).
made.json: versions and seed.
"""
import argparse
import json
import pathlib
import platform
import shutil

import numpy as np
import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

SEED = 20260102
HERE = pathlib.Path(__file__).parent / "pretrained"
END = "<|endoftext|>"
TEXT = """The miller's daughter counted the sacks twice, and twice there were eleven. "Who took the twelfth?" she asked the cat.
The cat, who had slept on it since noon, didn't answer; it's not the way of cats to answer the first question of a day.
By evening the wind had turned. The sails went round and round, the stones ground the grain, and the flour lay white on
the floor, on the stairs, on the cat. Thirty-two grains were left over, and the miller's daughter put them into her pocket.
"""
SAMPLES = ["The miller", "the cat's 12 sacks — didn't they?", "  two  spaces\n\n\tand a tab\r\n", "Zwölf Öfen, 水, 👩‍🚀 and ﬁ",
           "wind" + END + "The", END, "", "\x00\x7f\xa0\u3000x", "a" * 40 + "ground  "]

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)


def tokenizer(vocab):
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(TEXT.splitlines(True), trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=[END], initial_alphabet=alphabet, show_progress=False))
    return bpe


def filled(bpe, vocab):
    """With tokens that no text has, up to a size that TEXT is too short for."""
    described = json.loads(bpe.to_str())
    have = described["model"]["vocab"]
    have |= {"<unused %d>" % i: i for i in range(len(have), vocab)}
    return tokenizers.Tokenizer.from_str(json.dumps(described))


def model(rng, bpe, scale=1.0, **sizes):
    end = bpe.token_to_id(END)
    config = transformers.GPT2Config(vocab_size=bpe.get_vocab_size(), bos_token_id=end, eos_token_id=end, **sizes)
    gpt = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, p in gpt.named_parameters():
            noise = torch.tensor(rng.standard_normal(tuple(p.shape)), dtype=torch.float32)
            # Far from the usual beginning, where logits are small and biases zero.
            p.copy_(noise * 0.2 * scale if p.dim() == 2 else (1 if ".ln_" in name and name.endswith("weight") else 0) + 0.1 * noise)
    return gpt


def write(folder, vocab, bare=False, dtype=None, rows=2, length=None, **sizes):
    rng = np.random.default_rng([SEED, vocab])
    shutil.rmtree(folder, ignore_errors=True)
    bpe = tokenizer(min(vocab, 300))
    bpe = filled(bpe, vocab) if vocab > 300 else bpe
    gpt = model(rng, bpe, **sizes)
    if dtype:
        # The numbers of the narrow dtype, computed with in f32, as they are read.
        gpt = gpt.to(getattr(torch, dtype))
    saved = gpt.transformer if bare else gpt
    saved.save_pretrained(folder, **({"max_shard_size": "120KB"} if bare else {}))
    (folder / "generation_config.json").unlink(missing_ok=True)
    gpt = gpt.float()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe)
    bpe.save(str(folder / "tokenizer.json"), pretty=False)
    length = length or gpt.config.n_positions
    tokens = torch.tensor(rng.integers(0, vocab, (rows, length)))
    prompt = fast("The miller")["input_ids"]
    with torch.no_grad():
        logits = gpt(tokens).logits
        greedy = gpt.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=length - len(prompt),
                              eos_token_id=None, pad_token_id=0)[0, len(prompt):].tolist()
    save_file({"tokens": tokens, "logits": logits}, folder / "expected.safetensors")
    texts = [dict(text=text, ids=fast(text)["input_ids"]) for text in SAMPLES]
    (folder / "expected.json").write_text(json.dumps(dict(texts=texts, greedy=dict(prompt=prompt, tokens=greedy))) + "\n")
    for file in folder.iterdir():
        file.chmod(0o644)
    size = sum(f.stat().st_size for f in folder.iterdir())
    print("%s: %d parameters, %d bytes, logits to %.2f" % (folder.name, gpt.num_parameters(), size, logits.abs().max()))


arguments = argparse.ArgumentParser()
arguments.add_argument("--gpt2", type=pathlib.Path)
arguments.add_argument("--dtype")
arguments = arguments.parse_args()
if arguments.gpt2:
    write(arguments.gpt2, 50257, dtype=arguments.dtype, rows=1, length=64, scale=0.3)
    raise SystemExit
write(HERE / "small", 300, n_embd=32, n_layer=2, n_head=4, n_positions=32)
write(HERE / "bare", 280, bare=True, n_embd=36, n_layer=3, n_head=2, n_positions=20)
made = dict(seed=SEED, transformers=transformers.__version__, tokenizers=tokenizers.__version__,
            torch=torch.__version__.split("+")[0], numpy=np.__version__, python=platform.python_version(),
            machine=platform.machine())
(HERE / "made.json").write_text(json.dumps(made) + "\n")
