#!/usr/bin/env bash
# Runs the walk-through of the README word for word: examples/orders/walkthrough.sh [KELDA]
#
# The blocks between the two marks in README.md are the script, so that what the README says is what is tested. Only
# the port is another one, so that a broker on this machine is not disturbed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

kelda=$(realpath "${1:-target/release/kelda}")
[[ -x $kelda ]] || { echo "walkthrough: there is no $kelda: build it with 'cargo build --release -p kelda-cli'" >&2; exit 1; }

work=$(mktemp -d)
finish() {
    local status=$?
    # Everything that the walk-through left running is a job of its own shell, in its process group.
    [[ -z ${shell:-} ]] || kill -- -"$shell" 2>/dev/null || true
    if ((status != 0)); then
        echo "walkthrough: failed; the end of the broker's log:" >&2
        find "$work" -name '*.log' -exec tail -n 20 {} + >&2
    fi
    rm -rf "$work"
}
trap finish EXIT

mkdir "$work/bin" "$work/tmp"
ln -s "$kelda" "$work/bin/kelda"
{
    echo 'set -euo pipefail'
    sed -n '/<!-- walk-through: begin -->/,/<!-- walk-through: end -->/p' README.md | sed -n '/^```sh$/,/^```$/{/^```/d;p}'
} >"$work/script"
(($(wc -l <"$work/script") > 10)) || { echo "walkthrough: README.md has lost its marks" >&2; exit 1; }

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export PATH=$work/bin:$PATH TMPDIR=$work/tmp KELDA_PORT=$port KELDA_SERVER=127.0.0.1:$port

set -m
bash -v "$work/script" &
shell=$!
set +m
wait "$shell"
