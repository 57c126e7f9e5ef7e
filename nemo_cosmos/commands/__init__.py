"""One module per verb of the command line; each imports its heavy parts inside the verb."""
