#!/usr/bin/env bash
# Uses a broker with somebody else's client alone: tests/grpcurl.sh KELDA
#
# grpcurl knows nothing of Kelda. It finds services by reflection and speaks JSON, in which bytes are base64.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

kelda=${1:?name the kelda binary}
work=$(mktemp -d)
passed=0
# So that a count at the end of a pipe is not lost.
shopt -s lastpipe

finish() {
    local status=$?
    if [[ -n ${broker:-} ]]; then
        kill "$broker" 2>/dev/null || true
        wait "$broker" 2>/dev/null || true
    fi
    if ((status != 0)); then
        echo "grpcurl: the end of the broker's log:" >&2
        tail -n 20 "$work/broker.log" >&2 || true
        echo "$passed passed, 1 failed"
    fi
    rm -rf "$work"
}
trap finish EXIT

# call METHOD [JSON]: the answer as JSON.
call() {
    grpcurl -plaintext -max-time 20 ${2:+-d "$2"} "$address" "$1"
}

# expect WHAT PYTHON < JSON...: `answer` is the first message, `answers` all of them.
expect() {
    python3 -c '
import base64, json, sys

def text(value):
    return base64.b64decode(value).decode()

source, answers = sys.stdin.read().strip(), []
decoder = json.JSONDecoder()
while source:
    message, end = decoder.raw_decode(source)
    answers.append(message)
    source = source[end:].lstrip()
answer = answers[0]
if not eval("(" + sys.argv[2] + ")"):
    sys.exit(f"FAILED: {sys.argv[1]}\n  expected: {sys.argv[2]}\n  answered: {json.dumps(answers)}")
' "$1" "$2"
    passed=$((passed + 1))
    echo "ok: $1"
}

# expect_words WHAT WORD... : each word stands in standard input.
expect_words() {
    local what=$1 word text
    shift
    text=$(cat)
    for word in "$@"; do
        grep -qF -- "$word" <<<"$text" || { printf 'FAILED: %s\n  no "%s" in:\n%s\n' "$what" "$word" "$text" >&2; exit 1; }
    done
    passed=$((passed + 1))
    echo "ok: $what"
}

base64_of() {
    printf '%s' "$1" | base64 -w0
}

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
address=127.0.0.1:$port
"$kelda" dev --ephemeral --port "$port" >"$work/broker.log" 2>&1 &
broker=$!

deadline=$((SECONDS + 30))
until call grpc.health.v1.Health/Check 2>/dev/null | grep -q '"SERVING"'; do
    kill -0 "$broker" 2>/dev/null || { echo "FAILED: the broker ended before it served" >&2; exit 1; }
    ((SECONDS < deadline)) || { echo "FAILED: the broker does not serve" >&2; exit 1; }
done

call grpc.health.v1.Health/Check '{"service": "kelda.v1.ProduceService"}' |
    expect "health answers for one service" 'answer["status"] == "SERVING"'

grpcurl -plaintext "$address" list |
    expect_words "every service is listed" kelda.v1.ClusterService kelda.v1.ConsumeService kelda.v1.ProduceService \
        kelda.v1.TopicService grpc.health.v1.Health grpc.reflection.v1.ServerReflection grpc.reflection.v1alpha.ServerReflection

grpcurl -plaintext "$address" describe kelda.v1.ProduceService |
    expect_words "a service is described" 'rpc Produce (' 'rpc ProduceStream ( stream'

grpcurl -plaintext "$address" describe kelda.v1.Record |
    expect_words "a message is described" 'optional bytes key = 1' 'int64 timestamp_ms = 4'

call kelda.v1.TopicService/CreateTopic '{"name": "orders", "partition_count": 3}' |
    expect "a topic is created" 'answer["topic"]["name"] == "orders" and answer["topic"]["partitionCount"] == 3'

call kelda.v1.TopicService/ListTopics '{}' |
    expect "the topic is listed" '[topic["name"] for topic in answer["topics"]] == ["orders"]'

records="{\"key\": \"$(base64_of anna)\", \"value\": \"$(base64_of 'one anvil')\", \"headers\": [{\"key\": \"shop\", \"value\": \"$(base64_of north)\"}]},
         {\"key\": \"$(base64_of anna)\", \"value\": \"$(base64_of 'two buckets')\", \"timestampMs\": \"1767225600000\"}"
call kelda.v1.ProduceService/Produce "{\"topic\": \"orders\", \"records\": [$records]}" >"$work/produced"
expect "two records of one key go to one partition, fsynced" \
    'answer["acks"] == "ACKS_QUORUM" and len(answer["partitions"]) == 1 and answer["partitions"][0]["recordCount"] == 2' <"$work/produced"
# JSON leaves out a field that is zero.
partition=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["partitions"][0].get("partition", 0))' <"$work/produced")

call kelda.v1.ProduceService/Produce "{\"topic\": \"orders\", \"partition\": $partition, \"records\": [{\"value\": \"$(base64_of 'no key')\"}]}" |
    expect "a record without a key goes where it is told" 'answer["partitions"][0]["baseOffset"] == "2"'

call kelda.v1.ConsumeService/Fetch "{\"topic\": \"orders\", \"partition\": $partition, \"offset\": 0}" |
    expect "a fetch returns the records in order" \
        '[(r.get("offset", "0"), text(r["record"].get("key", "")), text(r["record"]["value"])) for r in answer["records"]] ==
         [("0", "anna", "one anvil"), ("1", "anna", "two buckets"), ("2", "", "no key")]
         and "key" not in answer["records"][2]["record"]
         and [(h["key"], text(h["value"])) for h in answer["records"][0]["record"]["headers"]] == [("shop", "north")]
         and answer["records"][1]["record"]["timestampMs"] == "1767225600000"
         and answer["nextOffset"] == "3" and answer["endOffset"] == "3"'

call kelda.v1.ConsumeService/Consume '{"topic": "orders", "start": {"boundary": "BOUNDARY_EARLIEST"}}' |
    expect "a stream starts, gives every record and says that it ended" \
        '"started" in answer and "end" in answers[-1]
         and [text(r["record"]["value"]) for m in answers for r in m.get("records", {}).get("records", [])] == ["one anvil", "two buckets", "no key"]'

call kelda.v1.ClusterService/GetStatus |
    expect "the cluster has one node that is ready" 'answer["ready"] and answer["nodeCount"] == 1 and answer["topicCount"] == 1'

if call kelda.v1.ProduceService/Produce '{"topic": "none", "records": [{"value": "eA=="}]}' >"$work/refused" 2>&1; then
    echo "FAILED: a topic that does not exist took a record" >&2
    exit 1
fi
expect_words "an unknown topic is refused with a reason" 'Code: NotFound' 'UNKNOWN_TOPIC' '"domain": "kelda"' <"$work/refused"

call kelda.v1.TopicService/DeleteTopic '{"name": "orders"}' >/dev/null
call kelda.v1.TopicService/ListTopics |
    expect "a deleted topic is gone" 'answer.get("topics", []) == []'

echo "$passed passed, 0 failed"
