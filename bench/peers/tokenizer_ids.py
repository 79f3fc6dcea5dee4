"""Compares ids written by bench/tokenizer_ids.lua with those of Hugging Face's tokenizers.

Usage: tokenizer_ids.py VOCAB IDS FILE...   the texts of a file are its lines, and, where a line has TABs, each of its
columns as well; IDS holds, for each file, int64 rows and tokens, int64 offsets[rows + 1], int32 ids[tokens]."""
import struct
import sys

from tokenizers import BertWordPieceTokenizer

BATCH = 5000
tokenizer = BertWordPieceTokenizer(sys.argv[1], lowercase=True)
ours = open(sys.argv[2], "rb")
all_texts = all_different = 0
for path in sys.argv[3:]:
    with open(path, encoding="utf-8", newline="") as f:
        lines = f.read().split("\n")
    if lines[-1] == "":
        lines.pop()
    texts = []
    for line in lines:
        texts.append(line)
        if "\t" in line:
            texts.extend(line.split("\t"))
    rows, tokens = struct.unpack("<qq", ours.read(16))
    if rows != len(texts):
        sys.exit(f"{path}: {rows} texts, expected {len(texts)}")
    offsets = memoryview(ours.read(8 * (rows + 1))).cast("q")
    ids = memoryview(ours.read(4 * tokens)).cast("i")
    different = 0
    for start in range(0, rows, BATCH):
        for i, encoded in enumerate(tokenizer.encode_batch(texts[start:start + BATCH]), start):
            if list(ids[offsets[i]:offsets[i + 1]]) != encoded.ids:
                different += 1
                if different <= 3:
                    print(f"  differs: {texts[i][:120]!r}")
    print(f"{path}: {rows} texts, {tokens} ids, {different} differ", flush=True)
    all_texts, all_different = all_texts + rows, all_different + different
print(f"{all_texts} texts, {all_different} differ")
sys.exit(all_different != 0)
