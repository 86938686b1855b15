#!/usr/bin/env bash
# Starts clusters of two and of three nodes by hand, uses them, kills a leader, and looks for every acknowledged record:
# tests/test_cluster.sh [KELDA]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

kelda=$(realpath "${1:-target/release/kelda}")
[[ -x $kelda ]] || { echo "no $kelda: build it, or name another kelda binary" >&2; exit 2; }
work=$(mktemp -d)
cd "$work"
declare -A nodes=()
steps=0

finish() {
    local status=$?
    for node in "${nodes[@]}"; do kill -9 "$node" 2>/dev/null || true; done
    wait 2>/dev/null || true
    if ((status != 0)); then
        echo "FAILED after $steps steps; the ends of the logs:" >&2
        tail -n 15 ./*.log >&2 || true
    fi
    rm -rf "$work"
}
trap finish EXIT

ok() {
    steps=$((steps + 1))
    echo "ok: $1"
}

# start N: node N, which joins node 1 if it is another one.
start() {
    local n=$1 seeds=()
    ((n == 1)) || seeds=(--seeds 127.0.0.1:7966)
    "$kelda" serve --node-id "node$n" --port $((8080 + n)) --cluster-port $((7965 + n)) --address 127.0.0.1 \
        --data-dir "data-node$n" "${seeds[@]}" >>"node$n.log" 2>&1 &
    nodes[$n]=$!
}

# wait_for WHAT COMMAND...: until it succeeds, for at most half a minute.
wait_for() {
    local what=$1 deadline=$((SECONDS + 30))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || { echo "FAILED: not within 30 s: $what" >&2; exit 1; }
        sleep 0.1
    done
    ok "$what"
}

# get N PATH: a page of node N.
get() {
    python3 -c 'import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read().decode())' \
        "http://127.0.0.1:$((8080 + $1))$2"
}

healthy() { get "$1" /health; }

# sees N COUNT: node N knows this many nodes.
sees() { [[ $("$kelda" cluster status -o json --server "127.0.0.1:$((8080 + $1))" | field node_count) == "$2" ]]; }

# field NAME < JSON
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

stop_all() {
    for n in "${!nodes[@]}"; do
        kill "${nodes[$n]}"
        wait "${nodes[$n]}" || { echo "FAILED: node $n did not stop in order" >&2; exit 1; }
        unset "nodes[$n]"
    done
    rm -rf data-node* ./*.log
    ok "all nodes stop in order"
}

# use COUNT: the cluster of that many nodes takes records at one node and gives them at another.
use() {
    local count=$1 n
    for ((n = 1; n <= count; n++)); do start "$n"; done
    for ((n = 1; n <= count; n++)); do
        wait_for "node $n of $count is healthy" healthy "$n"
        wait_for "node $n of $count sees all nodes" sees "$n" "$count"
        get "$n" /cluster/status | field cluster_id >"id$n"
        cmp -s id1 "id$n" || { echo "FAILED: node $n is of another cluster" >&2; exit 1; }
    done
    ok "all $count nodes are of one cluster"
}

use 2
"$kelda" topic create orders --partitions 2 --replication-factor 1 --server 127.0.0.1:8082
seq 1 1000 | "$kelda" produce orders --server 127.0.0.1:8082
[[ $("$kelda" consume orders --server 127.0.0.1:8081 | sort -n | uniq | wc -l) == 1000 ]]
ok "what one of two nodes takes, the other gives"
stop_all

use 3
servers=127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083
"$kelda" topic create orders --partitions 1 --replication-factor 3 --server 127.0.0.1:8083
seq 1 1000 | "$kelda" produce orders --server 127.0.0.1:8082
[[ $("$kelda" consume orders --server 127.0.0.1:8081 | wc -l) == 1000 ]]
ok "records at one of three nodes are read at another"

# The leader dies while records come in.
leader=$("$kelda" topic describe orders -o json --server 127.0.0.1:8081 |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["partitions"][0]["leader"])')
name=$("$kelda" cluster nodes -o json --server 127.0.0.1:8081 | python3 -c '
import json, sys
print(next(node["name"] for node in json.load(sys.stdin) if node["id"] == int(sys.argv[1])))' "$leader")
killed=${name#node}
(
    for ((i = 1001; i <= 6000; i++)); do
        echo "$i"
        ((i % 50)) || sleep 0.05
    done
) | "$kelda" produce orders --server "$servers" -o json >produced.json &
load=$!
sleep 1
kill -9 "${nodes[$killed]}"
wait "${nodes[$killed]}" 2>/dev/null || true
unset "nodes[$killed]"
wait "$load" || { echo "FAILED: not every record was acknowledged" >&2; cat produced.json >&2; exit 1; }
[[ $(field acknowledged <produced.json) == 5000 ]]
ok "a load goes on while its leader, node $killed, is killed"
other=$((killed % 3 + 1))
"$kelda" consume orders --server "127.0.0.1:$((8080 + other))" >after
cmp after <(seq 1 6000)
ok "all acknowledged records are there, once and in order"
start "$killed"
wait_for "node $killed is back" sees "$killed" 3
stop_all
echo "$steps steps passed"
