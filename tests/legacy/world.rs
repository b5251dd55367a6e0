//! Models hierarchies, cgroups and one process of a hybrid host with cgrulesengd, enough to predict
//! where a rule places the process.

use std::collections::BTreeSet;
use std::path::PathBuf;

use cgruled::cgroup::mounts::{Hierarchies, Hierarchy, Version};
use cgruled::policy::load::NameService;
use cgruled::rules::destination::SpecifierValues;
use cgruled::rules::names::UserIdentity;
use cgruled::rules::{Facts, Target};

const V1: [&str; 5] = ["cpuset", "cpu", "memory", "freezer", "pids"];
const UNIFIED: &str = "unified";

pub(crate) struct World {
    hierarchies: Hierarchies,
    /// Name of each hierarchy and cgroup of the process in it.
    places: Vec<(String, String)>,
    groups: BTreeSet<(String, String)>,
}

impl World {
    /// `words` change the usual model: `v2` omits the v1 hierarchies,
    /// `+hierarchy:/group` and `-hierarchy:/group` add and remove a cgroup (and its
    /// descendants), where `v1` stands for every v1 hierarchy.
    pub(crate) fn new(words: &str, at: &str, unified: &str) -> Self {
        let v1: &[&str] = if words.split(' ').any(|word| word == "v2") { &[] } else { &V1 };
        let names = v1.iter().chain([&UNIFIED]);
        let place = |name: &&str| match *name {
            "freezer" => at.to_owned(),
            UNIFIED => unified.to_owned(),
            _ => "/".to_owned(),
        };
        let places = names.clone().map(|name| ((*name).to_owned(), place(name))).collect();
        let hierarchies = Hierarchies::new(names.map(|name| hierarchy(name)).collect());
        let mut groups = BTreeSet::new();
        for name in ["freezer", "pids"] {
            for group in ["/ct", "/ct/a", "/ct/b", "/ct/c", "/ct/d"] {
                groups.insert((name.to_owned(), group.to_owned()));
            }
        }
        let mut world = Self { hierarchies, places, groups };
        words.split(' ').for_each(|word| world.change(word));
        world
    }

    fn change(&mut self, word: &str) {
        let (Some((sign, name)), Some((_, group))) =
            (word.split_at_checked(1), word.split_once(':'))
        else {
            return;
        };
        let name = name.split(':').next().unwrap();
        let hierarchies: &[&str] = if name == "v1" { &V1 } else { &[name] };
        for name in hierarchies {
            match sign {
                "+" => drop(self.groups.insert(((*name).to_owned(), group.to_owned()))),
                _ => self.groups.retain(|(n, g)| n != name || !g.starts_with(group)),
            }
        }
    }

    /// Returns the text of `/proc/PID/cgroup`.
    pub(crate) fn cgroup(&self) -> Vec<u8> {
        let lines = self.places.iter().zip(1..).map(|((name, place), n)| match &**name {
            UNIFIED => format!("0::{place}\n"),
            name => format!("{n}:{name}:{place}\n"),
        });
        lines.collect::<String>().into_bytes()
    }

    /// Moves the process to each target in turn, hierarchy by hierarchy, until one refuses it.
    pub(crate) fn place(
        &mut self,
        targets: &[Target],
        facts: &Facts<'_>,
        user: &UserIdentity,
        names: &NameService,
    ) {
        let group = group_name(names, facts.gid.0);
        let who = SpecifierValues {
            uid: facts.uid,
            user: user.name.as_deref(),
            gid: facts.gid,
            group: group.as_deref(),
            pid: super::pid(),
            program: facts.exe.map(|exe| exe.path),
        };
        for target in targets {
            let mut target = target.clone();
            self.hierarchies.adapt(&mut target);
            let target = &target;
            let (span, missing) = self.hierarchies.span_of(target);
            if !missing.is_empty() {
                return;
            }
            let mut path = "/".to_owned();
            target.destination.render(&who, &mut path);
            let steps = (0..).map_while(|n| self.hierarchies.step(target, span, n));
            let steps: Vec<usize> = steps.flat_map(|step| step.indexes()).collect();
            for index in steps {
                let (name, place) = &mut self.places[index];
                let exists = path == "/" || self.groups.contains(&(name.clone(), path.clone()));
                if !exists && !target.creates {
                    return;
                }
                place.clone_from(&path);
            }
        }
    }

    /// Returns the cgroup of the process in the form of `like`: a path, or `hierarchy=path` words.
    pub(crate) fn show(&self, like: &str) -> String {
        let place = |name: &str| {
            let found = self.places.iter().find(|(own, _)| own == name);
            found.map_or("nowhere", |(_, place)| place.as_str())
        };
        if !like.contains('=') {
            return place("freezer").to_owned();
        }
        let names = like.split(' ').filter_map(|word| word.split_once('=')).map(|(name, _)| name);
        names.map(|name| format!("{name}={}", place(name))).collect::<Vec<_>>().join(" ")
    }
}

fn hierarchy(name: &str) -> Hierarchy {
    let unified = name == UNIFIED;
    Hierarchy {
        version: if unified { Version::V2 } else { Version::V1 },
        mount_point: PathBuf::from("/sys/fs/cgroup").join(name),
        top: "/".to_owned(),
        listed: if unified { String::new() } else { name.to_owned() },
        controllers: vec![if unified { "hugetlb" } else { name }.to_owned()],
        favordynmods: false,
    }
}

fn group_name(names: &NameService, gid: u32) -> Option<String> {
    let text = std::fs::read_to_string(&names.group).unwrap();
    let line = text.lines().find(|line| line.split(':').nth(2) == Some(&gid.to_string()))?;
    line.split(':').next().map(str::to_owned)
}
