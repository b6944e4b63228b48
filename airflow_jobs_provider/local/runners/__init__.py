"""Those who do the work of runs, one for each kind of task."""
