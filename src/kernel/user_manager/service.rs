//! Thread that looks up service managers.

use std::io;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};
use nix::sys::eventfd::EventFd;

use super::lookup::{LookupError, ManagerLookup, ManagerProcesses};
use crate::event::Uid;

/// Result of a lookup, with the user that it belongs to.
#[derive(Debug)]
pub struct LookupReply {
    /// User whose manager was looked up.
    pub uid: Uid,
    /// Manager of the user, or the reason for which it is unknown.
    pub result: Result<ManagerProcesses, LookupError>,
}

/// Interface of the hot thread to the lookup thread.
#[derive(Debug)]
pub struct LookupService {
    lookup: ManagerLookup,
    thread: Option<(Sender<Uid>, Receiver<LookupReply>)>,
    waker: Arc<EventFd>,
}

impl LookupService {
    /// Creates a service that writes to `waker` after each reply. Its thread is started by the first
    /// [`Self::ask`].
    pub fn new(lookup: ManagerLookup, waker: Arc<EventFd>) -> Self {
        Self { lookup, thread: None, waker }
    }

    /// Requests the manager of a user.
    ///
    /// # Errors
    /// The thread cannot be started or has exited.
    pub fn ask(&mut self, uid: Uid) -> io::Result<()> {
        if self.thread.is_none() {
            self.thread = Some(self.start()?);
        }
        let asked = self.thread.as_ref().is_some_and(|(requests, _)| requests.send(uid).is_ok());
        if !asked {
            self.thread = None;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }

    fn start(&self) -> io::Result<(Sender<Uid>, Receiver<LookupReply>)> {
        let (requests, asked) = unbounded();
        let (sender, replies) = unbounded();
        let lookup = self.lookup.clone();
        let waker = Arc::clone(&self.waker);
        let builder = thread::Builder::new().name("managers".into()).stack_size(256 * 1024);
        builder.spawn(move || serve(&lookup, &asked, &sender, &waker))?;
        Ok((requests, replies))
    }

    /// Returns the replies that have arrived.
    pub fn replies(&self) -> impl Iterator<Item = LookupReply> + '_ {
        self.thread.iter().flat_map(|(_, replies)| replies.try_iter())
    }
}

fn serve(
    lookup: &ManagerLookup,
    asked: &Receiver<Uid>,
    replies: &Sender<LookupReply>,
    waker: &EventFd,
) {
    while let Ok(uid) = asked.recv() {
        let result = lookup.find(uid);
        let is_taken = replies.send(LookupReply { uid, result }).is_ok();
        // The write fails only if the counter is full, and then the main loop is awake.
        if !is_taken || waker.write(1).is_err() {
            return;
        }
    }
}
