"""What methods have in common in both packages: arguments, stopping rules and the choice of ``auto``."""
