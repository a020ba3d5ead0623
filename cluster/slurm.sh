#!/usr/bin/env bash
# A study on the nodes of a Slurm allocation, with a Ray of its own that ends with the job:
#
#     sbatch [options of sbatch] cluster/slurm.sh -- python studies/bin_sweep.py --out /shared/results ...
#
# Options of sbatch that are given before the name of this file win over the lines below. Start it in a folder that all
# nodes see. The same line goes on where it was: before the time limit the study is stopped and the job queued again.
# shellcheck disable=SC2317,SC2329 # functions that traps call, and other nodes
#SBATCH --job-name=histpert
#SBATCH --output=histpert-%j.log
#SBATCH --open-mode=append
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@240
#SBATCH --requeue
set -euo pipefail

LONGEST_START_SECONDS=300
LONGEST_STOP_SECONDS=100

say() { echo "$(date +%H:%M:%S) $*" >&2; }

if [[ ${1-} == -- ]]; then shift; fi
if (($# == 0)) || [[ -z ${SLURM_JOB_ID-} ]]; then
    say "usage: sbatch [options of sbatch] cluster/slurm.sh -- python studies/bin_sweep.py ..."
    exit 2
fi

cd "$SLURM_SUBMIT_DIR"
if [[ -z ${VIRTUAL_ENV-} && -f .venv/bin/activate ]]; then
    # shellcheck disable=SC1091 # made by `make study`
    . .venv/bin/activate
fi

# A token of this run alone, in a folder of the job that nobody else may enter. It is never on a command line, which all
# users of a node can read. What a run of this job that was killed has left goes first.
rm -rf "$SLURM_SUBMIT_DIR/.histpert-$SLURM_JOB_ID"
job_folder=$SLURM_SUBMIT_DIR/.histpert-$SLURM_JOB_ID
(umask 077 && mkdir "$job_folder" && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$job_folder/token")
unset RAY_AUTH_TOKEN RAY_ADDRESS
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=$job_folder/token
# Ray's servers of metrics ask for no token, and two take ports that other jobs want too: they get ports that cannot be.
export RAY_enable_metrics_collection=0 AUTOSCALER_METRIC_PORT=-1 DASHBOARD_METRIC_PORT=-1
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 # when Ray is told to end, the study has ended

steps=()
study=
signal=
asked_at=

is_alive() { [[ -n $1 ]] && kill -0 "$1" 2>/dev/null; }

# Ctrl-C for the study, which then writes what it has.
ask_to_stop() {
    signal=$1
    asked_at=$SECONDS
    say "signal $1: stopping"
    if is_alive "$study"; then kill -INT -- "-$study"; fi
}

finish() {
    local step
    trap '' USR1 TERM INT
    rm -rf "$job_folder"
    if is_alive "$study"; then kill -KILL -- "-$study"; fi
    for step in "${steps[@]}"; do
        if is_alive "$step"; then kill -TERM "$step"; fi
    done
    local until=$((SECONDS + 60))
    for step in "${steps[@]}"; do
        while is_alive "$step" && ((SECONDS < until)); do sleep 0.5; done
        if is_alive "$step"; then kill -KILL "$step"; fi
    done
}
trap finish EXIT
trap 'ask_to_stop USR1' USR1
trap 'ask_to_stop TERM' TERM INT

# On each node, by srun: Ray until it is told to end. Its sockets want a folder with a short name, which Ray opens
# to all users; the one around it stays closed. `ray stop` would end other jobs of the same user on a shared node.
ray_node() {
    local folder ray address=$1
    shift
    if [[ $address == this ]]; then address=$(node_address); fi
    folder=$(mktemp -d /tmp/ray-XXXXXX)
    ray start --block --disable-usage-stats --node-ip-address "$address" --temp-dir "$folder/r" \
        --dashboard-agent-listen-port 0 "$@" &
    ray=$!
    trap 'kill "$ray" 2>/dev/null' TERM INT
    while kill -0 "$ray" 2>/dev/null; do wait "$ray" || true; done
    rm -rf "$folder"
}

# The address by which other nodes know this one, not the loopback that some systems give their own name.
node_address() {
    local address
    address=$(getent ahostsv4 "$(hostname)" | awk '$1 !~ /^127[.]/ { print $1; exit }')
    echo "${address:-$(hostname -I | awk '{ print $1 }')}"
}

# Ports that nothing on this node uses, below the ones that the system hands out by itself.
free_ports() {
    python - "$1" <<'PYTHON'
import random
import socket
import sys

ports = []
for port in random.SystemRandom().sample(range(20_000, 32_000), 200):
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            continue
    ports.append(port)
    if len(ports) == int(sys.argv[1]):
        break
print(*ports)
PYTHON
}

all_nodes_are_in() {
    python - "$1" "$2" <<'PYTHON'
import sys
import time

import ray

wanted, seconds = map(int, sys.argv[1:])
ray.init(logging_level="ERROR", log_to_driver=False)
end = time.monotonic() + seconds
while time.monotonic() < end:
    if sum(node["Alive"] for node in ray.nodes()) >= wanted:
        sys.exit(0)
    time.sleep(0.5)
sys.exit(1)
PYTHON
}

give_up() {
    say "$*; its last lines:"
    tail -n 20 "$job_folder"/*.log >&2
    exit 1
}

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
n_nodes=${#nodes[@]}
cpus=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}
if ((n_nodes == 1)); then
    address=127.0.0.1
    export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 # else Ray listens to the network even so
else
    address=$(node_address)
fi
read -r port dashboard_port client_port < <(free_ports 3)

on_node="$(declare -f ray_node node_address); ray_node \"\$@\""
step=(--export=ALL --overlap --ntasks-per-node=1 --cpus-per-task="$cpus" --kill-on-bad-exit=0)

# This script runs on the first node of the allocation, and so do the head and the study.
srun "${step[@]}" --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" \
    bash -c "$on_node" ray_node "$address" --head --port "$port" --num-cpus "$cpus" --include-dashboard true \
    --dashboard-host 127.0.0.1 --dashboard-port "$dashboard_port" --ray-client-server-port "$client_port" \
    >"$job_folder/head.log" 2>&1 &
head=$!
steps+=("$head")
until (exec 3<>"/dev/tcp/$address/$port") 2>/dev/null; do
    is_alive "$head" || give_up "Ray did not start on ${nodes[0]}"
    ((SECONDS < LONGEST_START_SECONDS)) || give_up "Ray on ${nodes[0]} does not answer"
    [[ -z $signal ]] || exit 1
    sleep 0.5
done
if ((n_nodes > 1)); then
    srun "${step[@]}" --nodes=$((n_nodes - 1)) --ntasks=$((n_nodes - 1)) --exclude="${nodes[0]}" \
        bash -c "$on_node" ray_node this --address "$address:$port" --num-cpus "$cpus" \
        >"$job_folder/workers.log" 2>&1 &
    steps+=("$!")
fi
export RAY_ADDRESS=$address:$port
all_nodes_are_in "$n_nodes" "$LONGEST_START_SECONDS" || give_up "not all of the $n_nodes nodes came in"
say "Ray runs on $n_nodes nodes; its dashboard: ssh -L $dashboard_port:127.0.0.1:$dashboard_port ${nodes[0]}"

[[ -z $signal ]] || exit 1
set -m # a process group of its own, in which Ctrl-C means something
"$@" &
study=$!
set +m
while is_alive "$study"; do
    # Finished trials are in the ledger, whatever happens to the process.
    if ! is_alive "$head"; then
        say "the head of Ray is gone, and the study with it"
        kill -KILL -- "-$study"
    elif [[ -n $asked_at ]] && ((SECONDS - asked_at > LONGEST_STOP_SECONDS)); then
        kill -KILL -- "-$study"
    fi
    sleep 1 &
    wait "$!" || true # a trap runs at once, not after the sleep
done
status=0
wait "$study" || status=$?

if [[ $signal == USR1 ]] && ((status != 0)); then
    finish
    trap - EXIT
    say "time is nearly up: the job goes to the queue again"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
