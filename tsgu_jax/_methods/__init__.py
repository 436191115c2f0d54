"""The methods, a file each, and the loop around those that iterate."""
