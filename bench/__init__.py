"""`make bench`: speeds and costs within one run, on the machine that it runs on."""
