//! Rule files in TOML. Pure.
