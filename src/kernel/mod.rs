//! What the daemon reads from the kernel: events of the proc connector, external moves, the state of
//! processes and their executables, and the service managers of users.

pub mod connector;
pub mod container;
pub mod errno;
pub mod exe_pool;
pub mod gate;
pub mod moves;
pub mod process;
pub mod program;
pub mod user_manager;
