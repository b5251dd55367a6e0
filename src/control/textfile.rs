//! Writes all counters into a file every now and then, for the textfile collector of node_exporter. On a
//! thread of its own: a disk may stand still.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::openmetrics;
use super::overview::Overview;
use crate::atomic_file;

/// The time between two writes: the usual interval of a scrape.
const EVERY: Duration = Duration::from_secs(15);

/// How long the end waits for a disk that stands still.
const PATIENCE: Duration = Duration::from_secs(2);

/// The running writer. Ends and removes the file when dropped, as soon as the disk lets it.
#[derive(Debug)]
pub struct Textfile {
    ends: Option<Sender<()>>,
    /// Disconnected when the file is gone.
    gone: Receiver<()>,
}

impl Textfile {
    /// Writes `path`, now and every 15 seconds.
    ///
    /// # Errors
    /// No thread can be made. That the file cannot be written is said in the log.
    pub fn start(path: PathBuf, overview: Overview) -> io::Result<Self> {
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
            // Old numbers of a daemon that has ended would be taken for those of one that stands still.
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
        // Nothing is ever sent: it is disconnected, or the disk stands still.
        let _gone: Result<(), RecvTimeoutError> = self.gone.recv_timeout(PATIENCE);
    }
}

fn write(path: &Path, overview: &Overview) -> io::Result<()> {
    let text = openmetrics::render(&overview.status());
    atomic_file::replace(path, 0o644, text.as_bytes()).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()))
    })
}
