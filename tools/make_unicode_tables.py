"""Writes fathom/tokenizer/unicode_tables.h from a JSON file of inclusive code point ranges per class.

    python tools/make_unicode_tables.py unicode_classes.json > fathom/tokenizer/unicode_tables.h

The JSON object has the keys L, M, N, P, S (general categories) and space (White_Space), each a sorted list of [first, last].
"""
import json
import sys

CLASSES = (("L", "kLetter"), ("M", "kMark"), ("N", "kNumber"), ("P", "kPunctuation"), ("S", "kSymbol"), ("space", "kSpace"))

HEAD = """// Made by tools/make_unicode_tables.py; do not edit. Unicode 16.0: inclusive ranges of \\p{L} \\p{M} \\p{N} \\p{P} \\p{S} and White_Space.
#pragma once

#include <cstdint>

namespace fathom::unicode_tables {

struct Range {
  uint32_t first, last;
};
"""


def lines_of(ranges, width=136):
    line, out = " ", []
    for first, last in ranges:
        item = f" {{{first}, {last}}},"
        if len(line) + len(item) > width:
            out.append(line)
            line = " "
        line += item
    return out + [line]


def main():
    classes = json.load(open(sys.argv[1], encoding="utf-8"))
    print(HEAD)
    print("// clang-format off")
    for key, name in CLASSES:
        ranges = classes[key]
        assert all(a <= b for a, b in ranges) and all(x[1] < y[0] for x, y in zip(ranges, ranges[1:])), key
        print(f"inline constexpr Range {name}[] = {{")
        print("\n".join(lines_of(ranges)))
        print("};")
    print("// clang-format on\n\n}  // namespace fathom::unicode_tables")


if __name__ == "__main__":
    main()
