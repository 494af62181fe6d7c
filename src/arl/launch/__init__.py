"""Start one stage in a child process, in several processes or on several nodes; knows no stage."""
