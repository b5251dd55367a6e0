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
pub(super) struct LookupReply {
    pub(super) uid: Uid,
    pub(super) result: Result<ManagerProcesses, LookupError>,
}

/// Interface of the hot thread to the lookup thread.
#[derive(Debug)]
pub(super) struct LookupService {
    lookup: ManagerLookup,
    thread: Option<(Sender<Uid>, Receiver<LookupReply>)>,
    waker: Option<Arc<EventFd>>,
}

impl LookupService {
    /// Creates a service. Its thread is started by the first [`Self::ask`].
    pub(super) fn new(lookup: ManagerLookup) -> Self {
        Self { lookup, thread: None, waker: None }
    }

    /// Sets the eventfd that is written to after each reply.
    pub(super) fn wake_by(&mut self, waker: Arc<EventFd>) {
        self.waker = Some(waker);
    }

    /// Requests the manager of a user.
    ///
    /// # Errors
    /// The thread cannot be started or has exited.
    pub(super) fn ask(&mut self, uid: Uid) -> io::Result<()> {
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
        let waker = self.waker.clone();
        let builder = thread::Builder::new().name("managers".into()).stack_size(256 * 1024);
        builder.spawn(move || serve(&lookup, &asked, &sender, waker.as_deref()))?;
        Ok((requests, replies))
    }

    /// Checks whether a lookup was ever requested.
    pub(super) fn is_used(&self) -> bool {
        self.thread.is_some()
    }

    /// Returns the next reply that has arrived.
    pub(super) fn reply(&self) -> Option<LookupReply> {
        self.thread.as_ref().and_then(|(_, replies)| replies.try_recv().ok())
    }
}

fn serve(
    lookup: &ManagerLookup,
    asked: &Receiver<Uid>,
    replies: &Sender<LookupReply>,
    waker: Option<&EventFd>,
) {
    while let Ok(uid) = asked.recv() {
        let result = lookup.find(uid);
        let is_taken = replies.send(LookupReply { uid, result }).is_ok();
        // The write fails only if the counter is full, and then the main loop is awake.
        if !is_taken || waker.is_some_and(|waker| waker.write(1).is_err()) {
            return;
        }
    }
}
