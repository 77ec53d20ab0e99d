#!/usr/bin/env python3
"""Writes tests/data/parquet: the same rows by pyarrow in every codec, page version and encoding, and rows.jsonl, what reading them gives.

    make_parquet_test_data.py [OUTPUT]        needs pyarrow
"""
import json, os, random, sys

import pyarrow as pa
import pyarrow.parquet as pq

MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string()), ("tags", pa.list_(pa.list_(pa.int32()))),
                     ("call", pa.struct([("name", pa.string()), ("weight", pa.float64())]))])
SCHEMA = pa.schema([("messages", pa.list_(MESSAGE)), ("id", pa.int64()), ("small", pa.uint32()), ("flag", pa.bool_()), ("score", pa.float32()),
                    ("meta", pa.map_(pa.string(), pa.int64())), ("text", pa.string())])
# name -> (options of write_table)
FILES = {
    "snappy": dict(compression="snappy", row_group_size=7),
    "plain": dict(compression="none", use_dictionary=False, row_group_size=50),
    "gzip_v2": dict(compression="gzip", data_page_version="2.0", data_page_size=128),
    "zstd_v2": dict(compression="zstd", data_page_version="2.0", use_dictionary=False, row_group_size=11),
    "small_pages": dict(compression="snappy", data_page_size=64, write_batch_size=4),
    "delta": dict(compression="none", use_dictionary=False, data_page_version="2.0",
                  column_encoding={"id": "DELTA_BINARY_PACKED", "small": "DELTA_BINARY_PACKED", "text": "DELTA_BYTE_ARRAY", "flag": "RLE",
                                   "messages.list.element.role": "DELTA_LENGTH_BYTE_ARRAY",
                                   "messages.list.element.content": "DELTA_BYTE_ARRAY"}),
}


def rows(r):
    words = ["river", "每天", "\"quoted\"", "back\\slash", "line\nend", "tab\t", "café", "😀", "", "x" * 40]
    maybe = lambda value, share=0.7: value if r.random() < share else None
    for i in range(30):
        messages = [dict(role=r.choice(["user", "assistant"]), content=maybe(" ".join(r.choices(words, k=r.randint(0, 5)))),
                         tags=maybe([maybe([maybe(r.randint(-5, 5)) for _ in range(r.randint(0, 3))]) for _ in range(r.randint(0, 2))]),
                         call=maybe(dict(name=maybe("f"), weight=maybe(r.random())), 0.3)) for _ in range(r.randint(0, 4))]
        yield dict(messages=maybe([maybe(m, 0.95) for m in messages], 0.9), id=maybe(r.randint(-(1 << 62), 1 << 62) if i % 3 else i), small=r.randint(0, (1 << 32) - 1),
                   flag=maybe(r.random() < 0.5), score=maybe(i / 8), meta=maybe([(f"k{j}", maybe(j)) for j in range(r.randint(0, 3))]),
                   text=maybe(r.choice(words) * r.randint(1, 3)))


def seen(value, kind):
    """As the reader gives it: objects without null members but content."""
    if value is None:
        return None
    if pa.types.is_map(kind):
        return {k: v for k, v in value}
    if pa.types.is_list(kind):
        return [seen(v, kind.value_type) for v in value]
    if pa.types.is_struct(kind):
        fields = [(f.name, seen(value[f.name], f.type)) for f in kind]
        return {k: v for k, v in fields if v is not None or k == "content"}
    return value


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests/data/parquet")
    os.makedirs(out, exist_ok=True)
    data = list(rows(random.Random(1)))
    table = pa.Table.from_pylist(data, schema=SCHEMA)
    for name, options in FILES.items():
        pq.write_table(table, f"{out}/{name}.parquet", write_statistics=False, store_schema=False, **options)
        assert pq.read_table(f"{out}/{name}.parquet").to_pylist() == table.to_pylist()
    sums = [dict(messages=[dict(role="user", content=f"what is {i} and {i}?"), dict(role="assistant", content=f"It is {i + i}.")]) for i in range(1, 7)]
    pq.write_table(pa.Table.from_pylist(sums), f"{out}/sums.parquet", row_group_size=4)  # the conversations of tests/sft_cli.sh
    with open(f"{out}/rows.jsonl", "w", encoding="utf-8") as f:
        for row in data:
            f.write(json.dumps(seen(row, pa.struct(list(SCHEMA))), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
