"""Running replicas: `supervisor` owns their state, `decide` says what to do, `sandbox` seals them."""
