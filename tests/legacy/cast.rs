//! Who and what the words of a case stand for. In the case files there are the users alice, bob and
//! postgres (listed in ssl-cert), ids without a name, the group `ct` and the directory `X`. Live, each
//! case has its own, so that many can be run with one daemon.

/// What the words mean.
pub(crate) struct Cast {
    /// The first of [`Cast::IDS`] ids.
    base: u32,
    /// What is added to each name.
    suffix: String,
    /// What `ct` stands for.
    ground: String,
    /// What `X` stands for.
    programs: String,
}

const NAMES: [&str; 4] = ["alice", "bob", "postgres", "ssl-cert"];

impl Cast {
    /// How many ids a case needs.
    pub(crate) const IDS: u32 = 7;

    /// As it is written, with the ids of `tests/cases/legacy/passwd`.
    pub(crate) fn as_written() -> Self {
        let (ground, programs) = ("ct".to_owned(), "/opt/t".to_owned());
        Self { base: 61_901, suffix: String::new(), ground, programs }
    }

    /// The one with this number: its ids are from 61,000 on. `ground` has no slash at its beginning.
    pub(crate) fn number(number: u32, ground: String, programs: String) -> Self {
        let base = 61_000 + number * Self::IDS;
        assert!(base + Self::IDS < 61_700, "the harness has users of its own from there on");
        Self { base, suffix: number.to_string(), ground, programs }
    }

    /// The directory `X`.
    pub(crate) fn programs(&self) -> &str {
        &self.programs
    }

    /// A user's id.
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

    /// A group's id.
    pub(crate) fn gid(&self, name: &str) -> u32 {
        match name {
            "postgres" => self.base + 3,
            "other" => self.base + 6,
            name => self.uid(name),
        }
    }

    /// Lines for `/etc/passwd`.
    pub(crate) fn passwd(&self) -> String {
        let line = |name: &str| {
            let (uid, gid) = (self.uid(name), self.gid(name));
            format!("{name}{}:x:{uid}:{gid}::/nonexistent:/bin/false\n", self.suffix)
        };
        ["alice", "bob", "postgres"].map(line).concat()
    }

    /// Lines for `/etc/group`.
    pub(crate) fn group(&self) -> String {
        let suffix = &self.suffix;
        let line = |name: &str| format!("{name}{suffix}:x:{}:\n", self.gid(name));
        let own = ["alice", "bob", "postgres"].map(line).concat();
        format!("{own}ssl-cert{suffix}:x:{}:postgres{suffix}\n", self.base + 4)
    }

    /// Puts the meant for the written.
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

    /// The same for steps, where a user is a number; a group is `name:` there.
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
