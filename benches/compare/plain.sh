#!/usr/bin/env bash
# Ordinary MQTT on mosquitto and on mqchat, alternating in one run: pairs and fan-out at each QoS, the drain of sessions
# whose clients were away, connects, and what an idle connection costs. Prints every round, and the ratios of the medians.
#
#   benches/compare/plain.sh                    # 3 rounds
#   ROUNDS=1 CASES="pairs-1 fanout-0" benches/compare/plain.sh
#
# Everything runs on loopback with data in a temporary directory; only what was started here is ended, by its process id.
set -euo pipefail

ROUNDS=${ROUNDS:-3}
SECONDS_EACH=${SECONDS_EACH:-6}
IDLE=${IDLE:-10000}
CASES=${CASES:-pairs-0 pairs-1 pairs-2 fanout-0 fanout-1 offline churn conns}
MOSQUITTO=${MOSQUITTO:-/usr/sbin/mosquitto}

root=$(cd "$(dirname "$0")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
mqchat=${MQCHAT:-$target/release/mqchat}
bench=${MQCHAT_BENCH:-$target/release/mqchat-bench}

if [[ -z ${MQCHAT:-} || -z ${MQCHAT_BENCH:-} ]]; then
    (cd "$root" && cargo build --release --quiet -p server -p benches)
fi
[[ -x $MOSQUITTO ]] || { echo "no $MOSQUITTO: apt-get install mosquitto" >&2; exit 2; }
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"

work=$(mktemp -d)
pid=
port=
stop() {
    [[ -z $pid ]] || { kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; }
    pid=
    rm -rf "$work/data"
}
trap 'stop; rm -rf "$work"' EXIT

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() {
    local port
    while :; do
        port=$((12000 + RANDOM % 12000))
        answers "$port" || { echo "$port"; return; }
    done
}

# start BROKER: each measurement has a fresh one, so that none pays for what was before.
start() {
    port=$(free_port)
    mkdir -p "$work/data"
    case $1 in
    mosquitto)
        cat >"$work/mosquitto.conf" <<CONF
listener $port 127.0.0.1
allow_anonymous true
persistence false
max_queued_messages 0
max_inflight_messages 0
set_tcp_nodelay true
log_type error
CONF
        "$MOSQUITTO" -c "$work/mosquitto.conf" >"$work/log" 2>&1 & ;;
    mqchat*)
        # A device token logs in without hashing; the store of the chat is not touched by ordinary topics.
        persistence=always
        [[ $1 == mqchat ]] || persistence=off
        (cd "$work" && MQCHAT_BROKER__PERSISTENCE=$persistence exec "$mqchat" serve --dev --data-dir "$work/data" \
            --listen "127.0.0.1:$port") >"$work/log" 2>&1 & ;;
    esac
    pid=$!
    for _ in $(seq 100); do
        answers "$port" && return
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    echo "$1 did not start:" >&2
    tail -n 20 "$work/log" >&2
    exit 2
}

# measure CASE BROKER ROUND: one JSON object in $work/CASE.BROKER.ROUND.
measure() {
    start "$2"
    local all=(--json --addr "127.0.0.1:$port" --server-pid "$pid" --user plain --password plain-password)
    local load=(--warmup 2 --seconds "$SECONDS_EACH")
    case $1 in
    pairs-*) "$bench" "${all[@]}" pairs --qos "${1#*-}" "${load[@]}" ;;
    # Nothing is acknowledged at QoS 0: the window is a brake of the generator's own, and with 20 it is what is measured.
    fanout-0) "$bench" "${all[@]}" fanout --subscribers 1000 --qos 0 --window 100 "${load[@]}" ;;
    fanout-*) "$bench" "${all[@]}" fanout --subscribers 1000 --qos "${1#*-}" "${load[@]}" ;;
    offline) "$bench" "${all[@]}" offline --sessions 100 --messages 1000 ;;
    churn) "$bench" "${all[@]}" conns --churn --connections "$IDLE" --concurrency 50 ;;
    conns) "$bench" "${all[@]}" conns --connections "$IDLE" --concurrency 8 ;;
    esac >"$work/$1.$2.$3" || {
        echo "$1 on $2, round $3: mqchat-bench ended with $?" >&2
        cat "$work/$1.$2.$3" >&2
        tail -n 20 "$work/log" >&2
        exit 1
    }
    stop
}

# field CASE BROKER ROUND NAME
field() { sed -nE "s/.*\"$4\":([0-9.]+).*/\1/p" "$work/$1.$2.$3"; }

median() { sort -n | awk '{v[NR] = $1} END {print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }

median_of() {
    for round in $(seq "$ROUNDS"); do field "$1" "$2" "$round" "$3"; done | median
}

# What counts in a case, and what it costs the broker.
figure() {
    case $1 in
    pairs-* | fanout-*) echo delivered_per_s server_cpu_us_per_delivered ;;
    offline) echo drained_per_s server_cpu_us_per_delivered ;;
    churn) echo connects_per_s server_cpu_us_per_connect ;;
    conns) echo server_kb_per_connection connects_per_s ;;
    esac
}

echo "# $(nproc) cores, load $(cut -d' ' -f1-3 /proc/loadavg), $SECONDS_EACH s each, $ROUNDS rounds"
for round in $(seq "$ROUNDS"); do
    for case in $CASES; do
        read -r one two <<<"$(figure "$case")"
        brokers=(mosquitto mqchat)
        [[ $case != offline ]] || brokers+=(mqchat-memory)
        for broker in "${brokers[@]}"; do
            measure "$case" "$broker" "$round"
            printf '%-7s %-9s %-14s %-18s %12s   %-28s %10s\n' "$round" "$case" "$broker" \
                "$one" "$(field "$case" "$broker" "$round" "$one")" "$two" "$(field "$case" "$broker" "$round" "$two")"
        done
    done
done
for case in $CASES; do
    read -r one two <<<"$(figure "$case")"
    brokers=(mqchat)
    [[ $case != offline ]] || brokers+=(mqchat-memory)
    for broker in "${brokers[@]}"; do
        awk -v case="$case" -v broker="$broker" -v one="$one" -v a="$(median_of "$case" "$broker" "$one")" \
            -v b="$(median_of "$case" mosquitto "$one")" -v c="$(median_of "$case" "$broker" "$two")" \
            -v d="$(median_of "$case" mosquitto "$two")" -v two="$two" 'BEGIN {
                printf "# %-9s %-14s %s %s : %s = %.2f   %s %s : %s\n", case, broker, one, a, b, a / b, two, c, d }'
    done
done
