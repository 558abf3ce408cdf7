"""`make bench`: speeds as ratios within one run, on the machine that it runs on."""
