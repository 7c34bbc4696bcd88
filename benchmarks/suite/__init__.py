"""What the benchmarks share: workloads, who works on them, how they take turns, what is wanted of lksm."""
