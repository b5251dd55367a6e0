//! One entry for each process. Pure.
