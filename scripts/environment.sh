# Sourced by scripts/demo, scripts/test and scripts/check: makes .venv with the engines built for this kind of machine.
#
# llama-cpp-python comes as source. Its default build (-march=native) crashes on x86-64 machines with AMX, so it is built
# with portable AVX2 flags there and with the compiler's own defaults elsewhere. The wheel is kept outside the checkout,
# in a folder named after version, flags and Python, so that no other build of it is ever taken by mistake.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT=$PWD
VENV=$ROOT/.venv
LLAMA=llama-cpp-python==0.3.36
WHEELS=${XDG_CACHE_HOME:-$HOME/.cache}/outpost/wheels
NEEDED_MB=3000
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '%s\n' "$*" >&2; }

# die MESSAGE: one clear line, with the command that mends it.
die() {
    say "$(basename "$0"): $*"
    exit 1
}

llama_flags() {
    case "$(uname -m)" in
        x86_64 | amd64)
            echo "-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DLLAVA_BUILD=OFF" ;;
        *) echo "-DLLAVA_BUILD=OFF" ;;
    esac
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3.13 python3.12 python3.11 python3 python3.14; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die "no Python 3.11 or newer found; install one: sudo apt-get install python3 python3-venv (or name it: PYTHON=/path/python3 $0)"
}

check_disk() {
    local free
    free=$(df -Pm "$ROOT" | awk 'NR==2 {print $4}')
    [ "$free" -ge "$NEEDED_MB" ] ||
        die "$free MB are free on the disk of $ROOT, $NEEDED_MB are needed; free some (df -h $ROOT)"
}

check_compiler() {
    local compiler=${CXX:-}
    [ -n "$compiler" ] || for compiler in c++ g++ clang++; do command -v "$compiler" >/dev/null 2>&1 && return; done
    command -v "$compiler" >/dev/null 2>&1 ||
        die "no C++ compiler found; install one: sudo apt-get install g++ (macOS: xcode-select --install)"
}

# long_step TITLE LOG COMMAND...: run quietly with a clock; on failure the end of the log and one line.
long_step() {
    local title=$1 log=$2 started=$SECONDS pid status=0
    shift 2
    "$@" >"$log" 2>&1 &
    pid=$!
    trap 'kill "$pid" 2>/dev/null; exit 130' INT TERM
    while kill -0 "$pid" 2>/dev/null; do
        if [ -t 2 ]; then
            printf '\r  %s ... %d:%02d ' "$title" $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)) >&2
        elif [ $(((SECONDS - started) % 60)) -eq 59 ]; then
            say "  $title ... $(((SECONDS - started + 1) / 60)) min"
        fi
        sleep 1
    done
    wait "$pid" || status=$?
    trap - INT TERM
    [ -t 2 ] && printf '\r\033[K' >&2
    if [ "$status" -ne 0 ]; then
        tail -n 15 "$log" >&2
        if grep -qiE "Could not find a version|Failed to establish|Temporary failure in name|Network is unreachable|No matching distribution" "$log"; then
            die "the package index cannot be reached; check the network (or pip's proxy settings) and run $0 again"
        elif grep -qi "No space left" "$log"; then
            die "the disk is full; free some space (df -h $ROOT) and run $0 again"
        fi
        die "$title failed; the whole log is $log"
    fi
    say "  $title: done in $((SECONDS - started)) s"
}

build_llama() {
    local flags key folder
    flags=$(llama_flags)
    key=$(printf '%s' "$LLAMA $flags $("$VENV/bin/python" -c 'import sysconfig as s, sys; print(s.get_platform(), sys.implementation.cache_tag)')" | cksum | cut -d' ' -f1)
    folder=$WHEELS/$key
    if ! ls "$folder"/llama_cpp_python-*.whl >/dev/null 2>&1; then
        check_compiler
        mkdir -p "$folder.new"
        CMAKE_ARGS=$flags long_step "building llama.cpp (once, 5 to 30 minutes)" "$VENV/build.log" \
            "$VENV/bin/pip" wheel --no-deps --no-cache-dir --wheel-dir "$folder.new" "$LLAMA"
        rm -rf "$folder" && mv "$folder.new" "$folder"
    fi
    long_step "installing llama.cpp" "$VENV/install.log" "$VENV/bin/pip" install "$folder"/llama_cpp_python-*.whl
}

# install_mosquitto: the MQTT broker of the tests.
install_mosquitto() {
    apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mosquitto
}

# environment EXTRA: .venv with the project and one of its extras; does nothing where that is there already.
environment() {
    local extra=$1 stamp wanted python
    stamp=$VENV/.outpost-$extra
    wanted=$(cat pyproject.toml scripts/environment.sh | cksum)
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && return
    check_disk
    python=$(find_python)
    say "Setting up $VENV with $("$python" --version)"
    if [ ! -x "$VENV/bin/pip" ]; then
        "$python" -m venv "$VENV" >/dev/null 2>&1 ||
            die "$python cannot make virtual environments; install that part: sudo apt-get install python3-venv"
    fi
    [ "$("$VENV/bin/python" -c 'import llama_cpp; print(llama_cpp.__version__)' 2>/dev/null)" = "${LLAMA#*==}" ] || build_llama
    CMAKE_ARGS=$(llama_flags) long_step "installing Outpost and what it needs" "$VENV/install.log" "$VENV/bin/pip" install -e ".[$extra]"
    echo "$wanted" >"$stamp"
}
