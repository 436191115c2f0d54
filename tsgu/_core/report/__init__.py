"""What the packages say: statuses, the log, warnings and the words of errors."""
