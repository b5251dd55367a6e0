//! Writes all counters periodically to a file for the textfile collector of node_exporter. Runs on
//! a separate thread, because a disk may hang.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::openmetrics;
use super::status_source::StatusSource;
use crate::sys::atomic_file;

/// The interval between two writes: the usual scrape interval.
const EVERY: Duration = Duration::from_secs(15);

/// The time that shutdown waits for a hanging disk.
const PATIENCE: Duration = Duration::from_secs(2);

/// The running writer. When dropped it stops and removes the file, as soon as the disk permits.
#[derive(Debug)]
pub struct Textfile {
    ends: Option<Sender<()>>,
    /// Disconnected after the file was removed.
    gone: Receiver<()>,
}

impl Textfile {
    /// Starts a thread that writes `path` now and every 15 seconds.
    ///
    /// # Errors
    /// Returns an error if no thread can be created. A failure to write the file is logged.
    pub fn start(path: PathBuf, overview: StatusSource) -> io::Result<Self> {
        let (ends, ended) = bounded::<()>(0);
        let (last, gone) = bounded::<()>(0);
        let builder = thread::Builder::new().name("metrics".into()).stack_size(256 * 1024);
        builder.spawn(move || {
            let mut works = true;
            loop {
                let written = write(&path, &overview);
                if let (true, Err(error)) = (works, &written) {
                    ::log::warn!("{error}");
                }
                works = written.is_ok();
                if ended.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            // Stale values of a stopped daemon would look like those of a hanging one.
            let removed = if works { fs::remove_file(&path) } else { Ok(()) };
            if let Err(error) = removed {
                ::log::warn!("cannot remove {}: {error}", path.display());
            }
            drop(last);
        })?;
        Ok(Self { ends: Some(ends), gone })
    }
}

impl Drop for Textfile {
    fn drop(&mut self) {
        drop(self.ends.take());
        // No message is ever sent: the channel is disconnected, or the disk hangs.
        let _gone: Result<(), RecvTimeoutError> = self.gone.recv_timeout(PATIENCE);
    }
}

fn write(path: &Path, overview: &StatusSource) -> io::Result<()> {
    let text = openmetrics::render(&overview.status());
    atomic_file::replace(path, 0o644, text.as_bytes()).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()))
    })
}
