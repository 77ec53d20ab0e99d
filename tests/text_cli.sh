#!/usr/bin/env bash
# text_cli.sh FATHOM DATA: text that goes in and out: prompts from a file, the tokenizer's rows, what it learns from. DATA is tests/data.
set -u
fathom=$(realpath "$1")
data=$(realpath "$2")
dir=$(mktemp -d)
status=0
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
tokenizer="tokenizer_path=$data/tokenizer/deepseek"

fail() {
  echo "text_cli: $*" >&2
  status=1
}

# run EXPECTED_CODE ARGUMENT...: stdout is in out, stderr in err.
run() {
  local expected=$1 code
  "$fathom" "${@:2}" log_level=error >out 2>err
  code=$?
  [[ $code == "$expected" ]] || fail "${*:2}: exit $code (expected $expected): $(cat err)"
}

prompts_are_the_lines_with_text() {
  printf '!#\r\n\n  \n%%&' >prompts
  run 0 decode "load_parameters_path=$data/golden/v3" "$tokenizer" prompt_file=prompts max_new_tokens=1 ignore_eos=true json=prompts.json
  [[ $(grep -c finish_reason prompts.json) == 2 ]] || fail "prompts: not one answer for each line with text"
  grep -q $'\r' out && fail "prompts: a CR is part of one"
  printf '\n\n' >prompts
  run 2 decode "load_parameters_path=$data/golden/v3" "$tokenizer" prompt_file=prompts
  grep -q 'prompt_file=prompts: no prompt' err || fail "prompts: $(cat err)"
}

bad_rows_become_errors() {
  printf '{"ids":[1,2]}\n{"ids":[-1]}\nnot json\n{"ids":[3]}\n' >ids.jsonl
  run 3 tokenizer decode "$tokenizer" input=ids.jsonl output=text.jsonl json=result.json
  [[ $(grep -c '"text"' text.jsonl) == 2 && $(sed -n 2,3p text.jsonl | grep -c '"error":"ids.jsonl line') == 2 ]] || fail "decode: $(cat text.jsonl)"
  grep -q '"errors": 2' result.json || fail "decode: no errors in json=: $(cat result.json)"
  [[ $(wc -l <err) == 1 ]] && grep -q 'ids.jsonl line 2' err || fail "decode: $(cat err)"
  printf '{"text":"a"}\n{"ids":[3]}\n' >text.jsonl
  run 3 tokenizer encode "$tokenizer" input=text.jsonl output=ids.jsonl
  [[ $(sed -n 1p ids.jsonl) == '{"ids": ['*']}' ]] && sed -n 2p ids.jsonl | grep -q '"error":"text.jsonl line 2' || fail "encode: $(cat ids.jsonl)"
}

compressed_text_is_learnt_as_text() {
  local text=$data/tokenizer/train.txt
  run 0 tokenizer train "input=$text" vocab_size=400 output=plain
  if zstd -q "$text" -o text.zst; then
    run 0 tokenizer train input=text.zst vocab_size=400 output=compressed
    cmp plain/tokenizer.json compressed/tokenizer.json || fail "a compressed text gives another tokenizer"
  fi
  printf '{"body":"%s"}\n' "$(head -c 3000 "$text" | tr -d '\\"' | tr '\n' ' ')" >lines.ndjson
  sed -E 's/^[{]"body":"(.*)"[}]$/\1/' lines.ndjson | tr -d '\n' >lines.txt
  run 0 tokenizer train input=lines.ndjson train_data_columns=body vocab_size=300 output=fields
  run 0 tokenizer train input=lines.txt vocab_size=300 output=text
  cmp fields/tokenizer.json text/tokenizer.json || fail "JSON lines are learnt with their keys"
  printf 'a\0b' >zeros
  run 3 tokenizer train input=zeros vocab_size=300 output=nothing
  grep -q 'zeros: not text: looks like' err || fail "binary data: $(cat err)"
  run 3 decode "load_parameters_path=$data/golden/v3" "$tokenizer" prompt_file=zeros
  grep -q 'zeros: not text: looks like' err || fail "a binary prompt: $(cat err)"
  : >empty
  run 3 tokenizer train input=empty vocab_size=400 output=nothing
  grep -q 'empty: no text' err || fail "an empty text: $(cat err)"
}

conversations_become_text() {
  printf '%s\n' '{"messages":[{"role":"user","content":"a"}],"add_generation_prompt":true}' '{"messages":[{"role":"user"}]}' \
    '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],"template":"v3.1"}' >chat.jsonl
  run 0 tokenizer chat "$tokenizer" chat_template=v3 input=chat.jsonl output=text.jsonl mask=true json=result.json
  sed -n 1p text.jsonl | grep -qF '"text": "<｜begin▁of▁sentence｜><｜User｜>a<｜Assistant｜>"' || fail "chat: $(cat text.jsonl)"
  sed -n 2p text.jsonl | grep -q '"error":"chat.jsonl line 2: message 0' || fail "chat: a refusal: $(cat text.jsonl)"
  sed -n 3p text.jsonl | grep -q '</think>b.*"mask": \[0,.* 1, 1\]' || fail "chat: a mask: $(cat text.jsonl)"
  grep -q '"refused": 1' result.json || fail "chat: json=: $(cat result.json)"
  run 3 tokenizer chat "$tokenizer" input=chat.jsonl output=text.jsonl
  grep -q 'chat_template= (v2, v3,' err || fail "chat: no template: $(cat err)"
  printf '%s\n' '{"messages":[],"template":"v9"}' '{"messages":[],"template":"v3"}' >chat.jsonl
  run 3 tokenizer chat "$tokenizer" input=chat.jsonl output=text.jsonl
  [[ $(wc -l <err) == 1 ]] && grep -q 'line 1: "template" is "v9", none of v2, v3,' err || fail "chat: an unknown template: $(cat err)"
  [[ $(wc -l <text.jsonl) == 2 ]] || fail "chat: rows are missing: $(cat text.jsonl)"
  run 2 tokenizer chat "$tokenizer" chat_template=v9 text=a
  run 0 tokenizer chat "$tokenizer" chat_template=r1 'text=why</think>so' parse=true
  grep -qF '{"role": "assistant", "content": "so", "reasoning_content": "why", "tool_calls": []}' out || fail "chat: parse: $(cat out)"
}

prompts_are_the_lines_with_text
conversations_become_text
bad_rows_become_errors
compressed_text_is_learnt_as_text
exit $status
