"""What the MPO paper proves or shows of scores alone, simulated beside its bounds; numpy and scipy, no torch."""
