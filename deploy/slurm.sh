#!/usr/bin/env bash
# The loop as a Slurm job: a Ray cluster over the nodes of the job, the driver on the first of them.
#
#   sbatch --nodes=2 deploy/slurm.sh experiments/own-data.yaml
#
# The experiment says compute: {engine: ray, address: auto}. $APT_HOME lies on a disk that every node sees. A job that is
# ended goes on where it was when it is submitted again.
#SBATCH --job-name=apt-assets
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --signal=B:INT@120
#SBATCH --requeue
set -euo pipefail

experiment=${1:?name an experiment file}
: "${APT_HOME:?names a folder that every node sees}"
port=${RAY_PORT:-6379}
cpus=${SLURM_CPUS_PER_TASK:-1}
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}

# Everything that this job started ends with it; --block keeps a step, and so its node's part of the cluster, alive.
trap 'kill "${running[@]}" 2>/dev/null || true; wait' EXIT
running=()
srun --nodes=1 --ntasks=1 --overlap --nodelist="$head" \
  ray start --head --node-ip-address="$head" --port="$port" --num-cpus="$cpus" --disable-usage-stats --block &
running+=($!)
for _ in {1..60}; do
  ray status --address="$head:$port" >/dev/null 2>&1 && break
  sleep "${RAY_PAUSE:-5}"
done
ray status --address="$head:$port"
# The loop need not wait for them: a node that joins is used.
for node in "${nodes[@]:1}"; do
  srun --nodes=1 --ntasks=1 --overlap --nodelist="$node" \
    ray start --address="$head:$port" --num-cpus="$cpus" --disable-usage-stats --block &
  running+=($!)
done

# Slurm sends SIGINT to this script shortly before the time is up: passed on, the run ends as with Ctrl-C.
export RAY_ADDRESS="$head:$port"
set -m   # otherwise what runs in the background is deaf to it
apt-assets run --experiment "$experiment" &
driver=$!
set +m
trap 'kill -INT "$driver" 2>/dev/null || true' INT TERM
code=0
wait "$driver" || code=$?
# A signal ends `wait` before the driver has ended.
while kill -0 "$driver" 2>/dev/null; do wait "$driver" || code=$?; done
exit "$code"
