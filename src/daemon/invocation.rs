//! How the daemon is called.

use std::path::PathBuf;
use std::time::Duration;

use ::log::{Level, LevelFilter};

use crate::config::daemon_toml::ExternalMoves;
use crate::event::{Gid, Uid};
use crate::load::Overlay;
use crate::log::Output;
use crate::rebuild::Announce;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// File with the settings.
    pub config: PathBuf,
    /// Rule directories, most important first; the standard ones when empty.
    pub rules: Vec<PathBuf>,
    /// Whether legacy rule files are read.
    pub legacy: bool,
    /// What is taken for what rule files say, as a daemon that runs does.
    pub overlay: Overlay,
    /// Where groups begin, instead of the setting.
    pub root: Option<PathBuf>,
    /// Whether placements are only said.
    pub dry_run: bool,
    /// Log level instead of the setting.
    pub level: Option<LevelFilter>,
    /// Whether warnings about files are said where errors are, whatever the level.
    pub warns_of_files: bool,
    /// Time between two reports of counters instead of the setting.
    pub stats_every: Option<Duration>,
    /// Where log lines go instead of the setting; empty for the setting.
    pub outputs: Vec<Output>,
    /// What is done about external moves if the settings do not say.
    pub external_moves: ExternalMoves,
    /// Whether the counters are printed at the end.
    pub prints_counters: bool,
    /// What is said besides our own lines.
    pub announcements: Announcements,
    /// The original's socket, by which processes ask to be left alone; not served without `legacy`, nor
    /// in a dry run.
    pub sticky_socket: Option<PathBuf>,
    /// Where our own control socket is, instead of the setting.
    pub control: Option<Control>,
    /// Whether the daemon goes on without its control socket when that cannot be made.
    pub control_is_optional: bool,
    /// Owner of the original's socket.
    pub socket_owner: Option<Uid>,
    /// Group of the original's socket, whose members may connect.
    pub socket_group: Option<Gid>,
}

/// Where the control socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Nowhere.
    Off,
    /// There.
    At(PathBuf),
}

/// Lines of another daemon's log, for which scripts may wait.
#[derive(Clone, Debug)]
pub struct Announcements {
    /// First of all.
    pub opening: Vec<(Level, String)>,
    /// Every process was looked at.
    pub ready: fn(),
    /// The rules are read again.
    pub reloading: fn(),
    /// A signal ends the daemon.
    pub ended: fn(),
    /// Who tells of looks under rules that may come into force.
    pub rules: Announce,
}

impl Default for Announcements {
    fn default() -> Self {
        let (nothing, opening): (fn(), _) = (|| {}, Vec::new());
        let (ready, reloading, ended) = (nothing, nothing, nothing);
        Self { opening, ready, reloading, ended, rules: |_| None }
    }
}

impl Default for Invocation {
    fn default() -> Self {
        Self {
            config: PathBuf::from("/etc/cgruled/cgruled.toml"),
            rules: Vec::new(),
            legacy: true,
            overlay: Overlay::default(),
            root: None,
            dry_run: false,
            level: None,
            warns_of_files: false,
            stats_every: None,
            outputs: Vec::new(),
            external_moves: ExternalMoves::Revert,
            prints_counters: true,
            announcements: Announcements::default(),
            control: None,
            control_is_optional: false,
            sticky_socket: Some(PathBuf::from("/run/cgred.socket")),
            socket_owner: None,
            socket_group: None,
        }
    }
}
