"""The measurements: metrics, benchmark protocols and figures."""
