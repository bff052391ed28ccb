#!/usr/bin/env bash
# Pairs of publishers and subscribers on mosquitto and on mqchat, alternating in one run: each round measures all cases,
# so that a change of the machine's load meets all of them. Prints every round, the medians and the ratios to mosquitto.
#
#   benches/compare/pairs.sh                    # 3 rounds of 10 s
#   ROUNDS=5 SECONDS_EACH=20 benches/compare/pairs.sh
#
# Everything runs on loopback with data in a temporary directory; only what was started here is ended, by its process id.
set -euo pipefail

ROUNDS=${ROUNDS:-3}
SECONDS_EACH=${SECONDS_EACH:-10}
WARMUP=${WARMUP:-3}
PAIRS=${PAIRS:-50}
WINDOW=${WINDOW:-20}
PAYLOAD=${PAYLOAD:-100}
QOS=${QOS:-1}
MQTT=${MQTT:-5}
FORM=${FORM:-in}
MOSQUITTO=${MOSQUITTO:-/usr/sbin/mosquitto}

root=$(cd "$(dirname "$0")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
mqchat=${MQCHAT:-$target/release/mqchat}
bench=${MQCHAT_BENCH:-$target/release/mqchat-bench}

if [[ -z ${MQCHAT:-} || -z ${MQCHAT_BENCH:-} ]]; then
    (cd "$root" && cargo build --release --quiet -p server -p benches)
fi
[[ -x $MOSQUITTO ]] || { echo "no $MOSQUITTO: apt-get install mosquitto" >&2; exit 2; }

work=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    for pid in "${pids[@]}"; do
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap finish EXIT

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        answers "$port" || { echo "$port"; return; }
    done
}

# await NAME PID PORT LOG: until the broker accepts connections.
await() {
    for _ in $(seq 100); do
        answers "$3" && return
        kill -0 "$2" 2>/dev/null || break
        sleep 0.1
    done
    echo "$1 did not start:" >&2
    tail -n 20 "$4" >&2
    exit 2
}

mosquitto_port=$(free_port)
cat >"$work/mosquitto.conf" <<CONF
listener $mosquitto_port 127.0.0.1
allow_anonymous true
persistence false
max_queued_messages 0
max_inflight_messages 0
set_tcp_nodelay true
log_type error
CONF
"$MOSQUITTO" -c "$work/mosquitto.conf" >"$work/mosquitto.log" 2>&1 &
mosquitto_pid=$!
pids+=("$mosquitto_pid")
await mosquitto "$mosquitto_pid" "$mosquitto_port" "$work/mosquitto.log"

mqchat_port=$(free_port)
mkdir "$work/data"
(cd "$work" && exec "$mqchat" serve --dev --data-dir "$work/data" --listen "127.0.0.1:$mqchat_port") \
    >"$work/mqchat.log" 2>&1 &
mqchat_pid=$!
pids+=("$mqchat_pid")
await mqchat "$mqchat_pid" "$mqchat_port" "$work/mqchat.log"

load=(--pairs "$PAIRS" --qos "$QOS" --window "$WINDOW" --payload "$PAYLOAD" --warmup "$WARMUP" --seconds "$SECONDS_EACH")

# measure CASE ROUND: one JSON object in $work/CASE.ROUND.
measure() {
    local common=(--json --mqtt "$MQTT")
    case $1 in
    mosquitto)
        "$bench" "${common[@]}" --addr "127.0.0.1:$mosquitto_port" --server-pid "$mosquitto_pid" \
            pairs "${load[@]}" ;;
    mqchat-plain)
        "$bench" "${common[@]}" --addr "127.0.0.1:$mqchat_port" --server-pid "$mqchat_pid" \
            --user bench-plain --password bench-password pairs "${load[@]}" ;;
    mqchat-chat)
        "$bench" "${common[@]}" --addr "127.0.0.1:$mqchat_port" --server-pid "$mqchat_pid" \
            --user-prefix bench --password bench-password chat "${load[@]}" --form "$FORM" ;;
    esac >"$work/$1.$2" || {
        local status=$?
        echo "$1, round $2: mqchat-bench ended with $status" >&2
        cat "$work/$1.$2" >&2
        [[ $1 == mqchat-* ]] && tail -n 20 "$work/mqchat.log" >&2
        exit 1
    }
}

# field CASE ROUND NAME
field() { sed -E "s/.*\"$3\":([0-9.]+).*/\1/" "$work/$1.$2"; }

median() { sort -n | awk '{v[NR] = $1} END {print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }

median_of() {
    for round in $(seq "$ROUNDS"); do field "$1" "$round" "$2"; done | median
}

cases=(mosquitto mqchat-plain mqchat-chat)
columns=(delivered_per_s acked_per_s ack_p50_us ack_p99_us delivery_p99_us server_cpu_us_per_delivered server_rss_kb)

echo "# $PAIRS pairs, QoS $QOS, window $WINDOW, $PAYLOAD bytes, MQTT $MQTT, $SECONDS_EACH s each; $(nproc) cores, load $(cut -d' ' -f1-3 /proc/loadavg)"
printf '%-8s %-14s' round case
printf ' %27s' "${columns[@]}"
echo
row() { # row LABEL CASE FUNCTION...
    printf '%-8s %-14s' "$1" "$2"
    for column in "${columns[@]}"; do printf ' %27s' "$("${@:3}" "$column")"; done
    echo
}
for round in $(seq "$ROUNDS"); do
    for case in "${cases[@]}"; do
        measure "$case" "$round"
        row "$round" "$case" field "$case" "$round"
    done
done
for case in "${cases[@]}"; do
    row median "$case" median_of "$case"
done
base=$(median_of mosquitto delivered_per_s)
for case in "${cases[@]:1}"; do
    ratio=$(awk -v a="$(median_of "$case" delivered_per_s)" -v b="$base" 'BEGIN {printf "%.2f", a / b}')
    echo "# $case delivers $ratio times as much as mosquitto"
done
