#!/bin/bash
# sbatch configs/accelerate/slurm.sh pipelines/train_prior.py --config configs/prior/large.yaml
# Started again by Slurm after a node died, it goes on from the newest checkpoint.
#SBATCH --job-name=partita
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --requeue
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export first
srun bash -c 'accelerate launch --config_file configs/accelerate/two-nodes.yaml \
    --num_machines "$SLURM_NNODES" --num_processes "$((SLURM_NNODES * 8))" \
    --machine_rank "$SLURM_PROCID" --main_process_ip "$first" "$@" --resume' _ "$@"
