"""What Weir is compared with: the same work, written by hand or on stock Faust, one process each."""
