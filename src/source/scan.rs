//! All of /proc.
