"""Jobs and runs of the local workspace: the store, the scheduler, launches and repairs."""
