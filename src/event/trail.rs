//! Which forked children must be looked at. Pure.
