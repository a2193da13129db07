#!/usr/bin/env bash
# One training as a SLURM job over several machines. It ends two minutes before its time is up, with a checkpoint, and queues itself
# again until the training is done:
#
#   sbatch experiments/launch/slurm.sh fit -c experiments/base.yaml -c experiments/data/penn.yaml -c experiments/trainer/gpu.yaml
#
# Give a --trainer.default_root_dir of its own to every training: the checkpoints are there, on a disk that all machines share.
# Change the lines below to your cluster. A task is a process, and has one GPU. Tested with stand-ins for sbatch, srun and scontrol
# that set what SLURM sets and start the processes; a real SLURM was not at hand.
#SBATCH --job-name=bipose
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out
set -euo pipefail
if [ $# -eq 0 ]; then
  echo "usage: sbatch $0 fit -c FILE ... (see the head of this file)" >&2
  exit 2
fi
status=0
srun "${PYTHON:-python}" -m bipose_lit "$@" --ckpt_path=last \
  --trainer.num_nodes="$SLURM_NNODES" --trainer.devices="$SLURM_NTASKS_PER_NODE" --trainer.strategy="${STRATEGY:-ddp}" || status=$?
# 138 = 128 + SIGUSR1: a checkpoint is written and there is more to do. After SIGTERM (143) SLURM itself decides what comes next.
if [ "$status" -eq 138 ]; then
  scontrol requeue "$SLURM_JOB_ID"
  echo "bipose: job $SLURM_JOB_ID is queued again and goes on from its checkpoint"
  exit 0
fi
exit "$status"
