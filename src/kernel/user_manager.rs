//! The service managers of users: their recognition by cgroup and program, and the thread that looks
//! them up. [`crate::engine::user_managers`] decides about their processes.

mod lookup;
mod place;
mod service;

pub use lookup::{LookupError, ManagerLookup, ManagerProcess, ManagerProcesses};
pub(crate) use place::{SystemdPlace, is_manager_program};
pub use service::{LookupReply, LookupService};
