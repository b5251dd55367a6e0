//! Maps the placeholders of a case to real users, groups and paths. The case files use the users
//! alice, bob and postgres (a member of ssl-cert), IDs without a name, the cgroup `ct` and the
//! directory `X`. Live, each case has its own set, so that one daemon can run many cases at once.

/// The real names and IDs of the placeholders.
pub(crate) struct Cast {
    /// First of the [`Cast::IDS`] IDs.
    base: u32,
    /// Suffix of each user and group name.
    suffix: String,
    /// Cgroup in place of `ct`.
    ground: String,
    /// Directory in place of `X`.
    programs: String,
}

const NAMES: [&str; 4] = ["alice", "bob", "postgres", "ssl-cert"];

impl Cast {
    /// Number of IDs that a case needs.
    pub(crate) const IDS: u32 = 7;

    /// Returns the placeholders as they are in the files, with the IDs of
    /// `tests/cases/legacy/passwd`.
    pub(crate) fn as_written() -> Self {
        let (ground, programs) = ("ct".to_owned(), "/opt/t".to_owned());
        Self { base: 61_901, suffix: String::new(), ground, programs }
    }

    /// Returns the set with this number; the IDs begin at 61,000. `ground` has no leading slash.
    pub(crate) fn number(number: u32, ground: String, programs: String) -> Self {
        let base = 61_000 + number * Self::IDS;
        assert!(base + Self::IDS < 61_700, "the harness has users of its own from there on");
        Self { base, suffix: number.to_string(), ground, programs }
    }

    pub(crate) fn programs(&self) -> &str {
        &self.programs
    }

    pub(crate) fn uid(&self, name: &str) -> u32 {
        match name {
            "root" => 0,
            "alice" => self.base,
            "bob" => self.base + 1,
            "postgres" => self.base + 2,
            "nameless" => self.base + 5,
            _ => panic!("no user {name}"),
        }
    }

    pub(crate) fn gid(&self, name: &str) -> u32 {
        match name {
            "postgres" => self.base + 3,
            "other" => self.base + 6,
            name => self.uid(name),
        }
    }

    /// Returns the lines for `/etc/passwd`.
    pub(crate) fn passwd(&self) -> String {
        let line = |name: &str| {
            let (uid, gid) = (self.uid(name), self.gid(name));
            format!("{name}{}:x:{uid}:{gid}::/nonexistent:/bin/false\n", self.suffix)
        };
        ["alice", "bob", "postgres"].map(line).concat()
    }

    /// Returns the lines for `/etc/group`.
    pub(crate) fn group(&self) -> String {
        let suffix = &self.suffix;
        let line = |name: &str| format!("{name}{suffix}:x:{}:\n", self.gid(name));
        let own = ["alice", "bob", "postgres"].map(line).concat();
        format!("{own}ssl-cert{suffix}:x:{}:postgres{suffix}\n", self.base + 4)
    }

    /// Replaces the placeholders in a text.
    pub(crate) fn text(&self, text: &str, pid: u32) -> String {
        let mut text = text.replace("{pid}", &pid.to_string());
        for name in ["alice", "bob", "nameless"] {
            text = text.replace(&format!("{{{name}}}"), &self.uid(name).to_string());
        }
        text = text.replace("{other}", &self.gid("other").to_string());
        for name in NAMES {
            text = text.replace(name, &format!("{name}{}", self.suffix));
        }
        let ground = &self.ground;
        let text = text.replace("ct/", &format!("{ground}/"));
        text.replace(" ct ", &format!(" {ground} ")).replace("X/", &format!("{}/", self.programs))
    }

    /// Replaces the placeholders in steps, where a user is a UID; a group is written as `name:` there.
    pub(crate) fn steps(&self, steps: &str) -> String {
        let word = |word: &str| match word {
            "root" | "alice" | "bob" | "postgres" | "nameless" => self.uid(word).to_string(),
            word => match word.strip_suffix(':') {
                Some(name) => self.gid(name).to_string(),
                None => self.text(word, 0),
            },
        };
        steps.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
    }
}
