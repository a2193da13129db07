#!/usr/bin/env bash
# One training over several machines, or over several processes of this one, by torchrun. Run it on every machine, all at once:
#
#   NODES=2 NODE=0 MASTER=first-machine experiments/launch/torchrun.sh fit -c experiments/base.yaml -c experiments/data/penn.yaml
#   NODES=2 NODE=1 MASTER=first-machine experiments/launch/torchrun.sh fit -c experiments/base.yaml -c experiments/data/penn.yaml
#
#   NODES      machines (1)
#   NODE       number of this machine, from 0 (0)
#   PROCESSES  processes of each machine, one for each GPU (1)
#   MASTER     name or address of machine 0 (127.0.0.1)
#   PORT       a free port there (29500)
#   PYTHON     the interpreter (python)
#
# data.batch_size is the batch of one step over all processes: neither it nor the learning rate changes with their number.
# After a failure start it again on all machines with --ckpt_path last: torchrun does not bring single machines back.
set -euo pipefail
: "${NODES:=1}" "${NODE:=0}" "${PROCESSES:=1}" "${MASTER:=127.0.0.1}" "${PORT:=29500}" "${PYTHON:=python}"
if [ $# -eq 0 ]; then
  echo "usage: [NODES=.. NODE=.. PROCESSES=.. MASTER=.. PORT=..] $0 fit -c FILE ... (see the head of this file)" >&2
  exit 2
fi
exec "$PYTHON" -m torch.distributed.run \
  --nnodes "$NODES" --node-rank "$NODE" --nproc-per-node "$PROCESSES" --master-addr "$MASTER" --master-port "$PORT" \
  -m bipose_lit "$@" --trainer.num_nodes="$NODES" --trainer.devices="$PROCESSES" --trainer.strategy="${STRATEGY:-ddp}"
