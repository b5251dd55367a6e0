//! Named situations that a run must reach often enough.

macro_rules! situations {
    ($($name:ident $text:literal,)+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Situation { $($name,)+ }

        pub(crate) const NAMES: &[&str] = &[$($text,)+];
    };
}

situations! {
    OrphanOfGone "orphan whose intermediate process is gone",
    ForkReadBeforeParentsEvent "fork read while an event of its parent is unread",
    ReusedBetweenOpenAndWrite "PID reused between evaluation and write",
    ReusedWhileQueued "PID reused while an event of the exited process is queued",
    OverrunDuringScan "event lost during a scan",
    EventOverrun "event socket overrun",
    ForkOverrun "fork socket overrun",
    ReloadWhileLookup "reload while a name lookup is pending",
    StaleReply "reply for an earlier policy",
    WrongReply "wrong reply of the name service",
    NoReply "name service that does not reply",
    KilledInTurn "daemon killed during a turn",
    KilledInAttach "daemon killed during an attach",
    StartWithProcesses "start while processes need a move",
    ForkUnlinkedRead "cgroup of a child read before it is linked",
    ForkFinishedByAttach "attach waits for a fork",
    BornDuringAttach "child born while its creator is moved",
    BornBetweenChangeAndAttach "child born between a change and the move",
    BornDuringScan "child born during a scan",
    CloneParentInWindow "CLONE_PARENT while the creator is to be moved",
    StampsOutOfOrder "events queued in another order than their time stamps",
    ExitBeforeEvaluation "process exits before its evaluation",
    ZombieEvaluated "zombie is evaluated",
    LeaderExited "leader exits before other threads",
    LeaderExitedEvaluated "process without leader is evaluated",
    ThreadOfOther "thread with other credentials",
    ForkOfThreadOfOther "fork by a thread with other credentials",
    ExecOfThread "exec by a thread that is not the leader",
    SetuidExec "exec of a set-user-ID program",
    HangingExec "exec that hangs",
    HangingRead "read of an executable that blocks",
    ReadableAgain "blocked read returns",
    Examination "executable is examined",
    LateExamination "examination takes longer than its limit",
    ExecAfterExamination "exec between an examination and its reply",
    ChangedBeforeExamination "process changes before its examination",
    ExternalMove "external move by root",
    SecondExternalMove "second external move by root",
    MoveForUser "external move for a user",
    MoveLost "external move lost by the trace",
    BornElsewhere "child created in another cgroup",
    GroupRemoved "attach to a removed cgroup",
    AttachRefused "attach refused for a time",
    AttachRefusedForGood "attach refused for good",
    AttachSleeps "attach sleeps while others run",
    Pinned "process is pinned",
    PinInherited "child inherits a pin",
    PinnedEvaluated "pinned process is evaluated",
    Unpinned "pin is cancelled",
    VforkWaits "exec of a vforked child",
    ReloadInTurn "policy replaced while evaluations are pending",
    DestinationsChange "rules with other destinations",
    CutDrain "drain is cut short",
    KernelThread "kernel thread is evaluated",
    PlannedMove "process is moved as a plan said",
    InUnit "process stays in its unit",
    TwoHierarchies "move in two hierarchies",
    BelowProgram "process below a program of root",
    OrphanOfProgram "process whose ancestor ran a program of root earlier",
    Rests "the daemon is at rest",
}

/// How often each situation occurred.
#[derive(Clone)]
pub(crate) struct Counts(pub Vec<u64>);

impl Default for Counts {
    fn default() -> Self {
        Self(vec![0; NAMES.len()])
    }
}

impl Counts {
    pub(crate) fn hit(&mut self, situation: Situation) {
        self.0[situation as usize] += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(sum, count)| *sum += count);
    }
}
