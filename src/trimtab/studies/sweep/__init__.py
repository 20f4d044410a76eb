"""`trimtab sweep`: one command makes every point of a grid with every seed, and maps what came of them.

sweep_file, grid      what is swept: [sweep] of a file, --grid, and from both the points
run_table             the runs and their states, shared by the workers of one machine
shared_runs           the same for several machines, through a database
worker, run_progress  makes a run; worker_processes starts several workers
read, numbers         from run folders to the figures of a point
maps, result          the figures over the grid, and all of sweep.json
words, page, command  sentences and terminal, sweep.html, the command itself
"""
