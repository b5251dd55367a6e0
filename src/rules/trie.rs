//! Radix tree over literal prefixes. Pure.
