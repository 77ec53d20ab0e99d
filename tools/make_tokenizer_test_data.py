"""Writes tests/data/tokenizer/ with Hugging Face's tokenizers library (0.23): what its tests expect of fathom's tokenizer.

    python tools/make_tokenizer_test_data.py --tokenizer DIR --tokenizer-v2 DIR --strings encode.jsonl --text FILE --out tests/data/tokenizer

The two folders hold the tokenizer.json of DeepSeek-V3 and of V2 or V2-Lite (for their pre-tokenizers), FILE is an English text,
encode.jsonl has an object with "text" per line.
"""
import argparse
import itertools
import json
import os
import random

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"]
ADDED = ["<｜User｜>", "<｜Assistant｜>", "<｜tool▁call▁begin｜>", "<｜tool▁calls▁begin｜>"]


def dump(path, rows):
    with open(path, "w", encoding="utf-8") as f:
        f.write("".join(json.dumps(r, ensure_ascii=True) + "\n" for r in rows))


# Bytes that never stand in UTF-8, as byte-level BPE writes them: DeepSeek-V2's vocabulary has no token for them.
NEVER = set("ÀÁõö÷øùúûüýþÿ")
# Where the patterns of DeepSeek-V2 list their characters, and what lies around.
BLOCKS = [(0x20, 0x7F), (0xA0, 0x250), (0x370, 0x590), (0x900, 0x980), (0x1D00, 0x2070), (0x2100, 0x2190), (0x2C00, 0x2D30), (0x2FF0, 0x3100),
          (0x9F90, 0x9FB0), (0xA640, 0xA7C0), (0xAB60, 0xAC10), (0xD790, 0xD800), (0xFB00, 0xFB20), (0xFF00, 0xFF70), (0x10400, 0x10500),
          (0x11DD0, 0x11DF0), (0x1E900, 0x1E960)]


def train(texts, size, pre, without=frozenset()):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer, tok.decoder = pre, decoders.ByteLevel()
    alphabet = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - without)
    tok.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False))
    return tok


def pieces(tok, text):
    """Lengths in bytes; the ByteLevel step spells each byte as one character."""
    return [len(w) for w, _ in tok.pre_tokenizer.pre_tokenize_str(text)]


def can_become_a_character(tail):
    for n in range(1, 4 - len(tail) + 1):
        for more in itertools.product((0x80, 0x90, 0xA0, 0xBF), repeat=n):
            try:
                if len((tail + bytes(more)).decode()) == 1:
                    return True
            except UnicodeDecodeError:
                pass
    return False


def stream(ids, names):
    pending, out = b"", []
    for i in ids:
        pending += names.get(i, b"")
        held = next((k for k in (3, 2, 1) if k <= len(pending) and can_become_a_character(pending[-k:])), 0)
        out.append(pending[: len(pending) - held].decode("utf-8", "replace"))
        pending = pending[len(pending) - held :]
    return out, pending.decode("utf-8", "replace")


def bytes_of(tok):
    keep, n, back = [*range(33, 127), *range(161, 173), *range(174, 256)], 0, {}
    for b in range(256):
        back[chr(b) if b in keep else chr(256 + n)] = b
        n += b not in keep
    vocab = tok.get_vocab(with_added_tokens=True)
    return {i: bytes(back[c] for c in s) if all(c in back for c in s) else s.encode() for s, i in vocab.items()}


def encode_rows(tok, plain, texts):
    for text in texts:
        row = {"text": text, "pieces": pieces(tok, text), "ids": tok.encode(text, add_special_tokens=False).ids}
        ordinary = plain.encode(text, add_special_tokens=False).ids
        yield row | ({"ordinary": ordinary} if ordinary != row["ids"] else {})


def decode_rows(tok, rnd, count):
    names, size = bytes_of(tok), tok.get_vocab_size()
    broken = [i for i, b in names.items() if b.decode("utf-8", "ignore").encode() != b]
    for k in range(count):
        pool = [*range(size + 3)] if k % 2 else broken
        ids = [rnd.choice(pool) for _ in range(rnd.randint(0, 14))]
        shown, tail = stream(ids, names)
        skipped = tok.decode(ids, skip_special_tokens=True)
        yield {"ids": ids, "text": tok.decode(ids, skip_special_tokens=False), "text_skip_special": skipped, "pieces": shown, "tail": tail}


def without_added(tok):
    return Tokenizer.from_str(json.dumps(dict(json.loads(tok.to_str()), added_tokens=[])))


def random_text(rnd):
    """Characters of few blocks, many of them spaces, digits and newlines, so that every two kinds meet."""
    blocks = rnd.sample(BLOCKS, 3)
    draw = lambda: rnd.choice(" \n\r\t1a.\u3000\u2003") if rnd.random() < 0.4 else chr(rnd.randrange(*rnd.choice(blocks)))
    return "".join(draw() for _ in range(rnd.randint(1, 40)))


def write_v2(path, pre, corpus, strings, rnd):
    tok = train(corpus.splitlines(keepends=True), 500, pre, NEVER)
    os.makedirs(path("deepseek-v2"), exist_ok=True)
    tok.save(path("deepseek-v2/tokenizer.json"), pretty=False)
    texts = strings[:150] + [random_text(rnd) for _ in range(200)]
    dump(path("encode_deepseek-v2.jsonl"), encode_rows(tok, without_added(tok), texts))


def main():
    ap = argparse.ArgumentParser()
    for name in ("tokenizer", "tokenizer-v2", "strings", "text", "out"):
        ap.add_argument("--" + name, required=True)
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    rnd = random.Random(0)
    path = lambda name: os.path.join(a.out, name)
    corpus = open(a.text, encoding="utf-8").read()[:60000]
    corpus = corpus[: corpus.rindex("\n") + 1] + "1234 5678 12\n日本語のテキスト、カタカナ。中文句子。\nnaïve café élan\n  indented\n\ttab\n"
    strings = [json.loads(line)["text"] for line in open(a.strings, encoding="utf-8")]
    strings = [s for s in strings if len(s) < 400]
    strings = rnd.sample(strings, 450)
    strings += [f"{x}{t}{y}" for t in SPECIAL + ADDED for x, y in (("", ""), ("hi ", " ho"), ("<", ">"))]

    deepseek = Tokenizer.from_file(os.path.join(a.tokenizer, "tokenizer.json")).pre_tokenizer
    tok = train(corpus.splitlines(keepends=True), 600, deepseek)
    merges = json.loads(tok.to_str())["model"]["merges"]
    open(path("train.txt"), "w", encoding="utf-8").write(corpus)
    json.dump({"vocab_size": 600, "special": SPECIAL, "merges": merges}, open(path("train.json"), "w"))
    tok.add_tokens([AddedToken(t, normalized=False) for t in ADDED])
    os.makedirs(path("deepseek"), exist_ok=True)
    tok.save(path("deepseek/tokenizer.json"), pretty=False)
    config = {"add_bos_token": True, "bos_token": {"content": SPECIAL[0]}, "eos_token": SPECIAL[1]}
    json.dump(config, open(path("deepseek/tokenizer_config.json"), "w"))
    dump(path("encode_deepseek.jsonl"), encode_rows(tok, without_added(tok), strings))
    dump(path("decode_deepseek.jsonl"), decode_rows(tok, rnd, 200))

    gpt2 = train(corpus.splitlines(keepends=True), 400, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True))
    os.makedirs(path("gpt2"), exist_ok=True)
    gpt2.save(path("gpt2/tokenizer.json"), pretty=False)
    dump(path("encode_gpt2.jsonl"), encode_rows(gpt2, without_added(gpt2), strings[:250] + ["don't we'll 'S 's I'm 'd'", " 's", "  's"]))

    v2 = Tokenizer.from_file(os.path.join(a.tokenizer_v2, "tokenizer.json")).pre_tokenizer
    write_v2(path, v2, corpus, strings, rnd)


if __name__ == "__main__":
    main()
