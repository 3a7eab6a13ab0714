"""Jobs: what reads files, calls the stages, and writes results; the machine it runs on."""
