//! Datagrams of the proc connector → [`Event`](super::Event)s. Pure, total.
