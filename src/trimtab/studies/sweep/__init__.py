"""`trimtab sweep`: one command makes every point of a grid with every seed, and maps what came of them.

sweep_file, grid      what is swept: [sweep] of a file, --grid, and from both the points
run_table             the runs and their states; the sweep's own process writes it, and no other
dispatch              the sweep's loop: which job is next, what came of it, what was lost and is made again
executor              submit(job) -> future: here, in worker processes, on Ray (ray_places), by SLURM (slurm_places)
job, run_progress     a job and its outcome, and what makes it; worker: a process that makes job after job
read, numbers         from run folders to the figures of a point
maps, result          the figures over the grid, and all of sweep.json
words, page, command  sentences and terminal, sweep.html, the command itself
"""
