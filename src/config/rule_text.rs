//! Finds the text of rules in their files, by which a rule is recognised in a later version of its
//! file. It must not depend on names or on the position of a rule.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

use super::sections::sections;

/// Returns a hash of the text of each rule of a TOML file, without comments and blank lines. `lines` are
/// the lines of their first keys, from 1, ascending.
pub fn hashes_of_toml(text: &str, lines: &[u32]) -> Vec<u64> {
    let mut starts = Vec::new();
    let mut line = 1;
    for range in sections(text) {
        let section = &text[range];
        starts.push((line, section));
        line += section.bytes().filter(|&byte| byte == b'\n').count();
    }
    let section_at = |line: u32| {
        let next = starts.partition_point(|&(start, _)| start <= line as usize);
        starts.get(next.wrapping_sub(1)).map_or("", |&(_, section)| section)
    };
    lines.iter().map(|&line| hash(section_at(line).lines())).collect()
}

/// Returns a hash of the text of each rule of `cgrules.conf`, as [`hashes_of_toml`] does. A rule ends
/// where the next one begins.
pub fn hashes_of_legacy(text: &str, lines: &[u32]) -> Vec<u64> {
    let ends = lines.iter().skip(1).copied().chain([u32::MAX]);
    let all: Vec<&str> = text.lines().collect();
    let own = lines.iter().zip(ends).map(|(&start, end)| {
        let end = (end as usize - 1).min(all.len());
        hash(all.get(start as usize - 1..end).unwrap_or_default().iter().copied())
    });
    own.collect()
}

fn hash<'t>(lines: impl Iterator<Item = &'t str>) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    let own = lines.map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in own {
        hasher.write(line.as_bytes());
        hasher.write_u8(b'\n');
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_recognised_at_another_line() {
        let rule = "[[rule]]\nuser = 7\ncgroup = \"a\"\n";
        let other = "[[rule]]\nuser = 8\ncgroup = \"a\"\n";
        let before = hashes_of_toml(&format!("{rule}{other}"), &[2, 5]);
        let after = hashes_of_toml(&format!("# new\n\n{other}\n# x\n{rule}"), &[4, 9]);
        assert_eq!(before, [after[1], after[0]]);
        let [changed] = hashes_of_toml(&rule.replace('7', "8"), &[2])[..] else { panic!() };
        assert_eq!((changed, changed == before[0]), (before[1], false));
        // Two rules that are equal differ by their order alone.
        let twice = hashes_of_toml(&format!("{rule}{rule}"), &[2, 5]);
        assert_eq!(twice, [before[0], before[0]]);
    }

    #[test]
    fn a_line_of_cgrules_conf_belongs_to_the_rule_before_it() {
        let one = hashes_of_legacy("a cpu x\n% memory y\nb cpu x\n", &[1, 3]);
        let two = hashes_of_legacy("b cpu x\n# z\na cpu x\n% memory y\n", &[1, 3]);
        assert_eq!(one, [two[1], two[0]]);
        assert_ne!(hashes_of_legacy("a cpu x\n", &[1])[0], one[0]);
    }

    #[test]
    fn lines_outside_of_the_text_have_a_hash() {
        assert_eq!(hashes_of_toml("", &[0, 9]).len(), 2);
        assert_eq!(hashes_of_legacy("", &[1, 9]).len(), 2);
        assert_eq!(hashes_of_legacy("a", &[5, 3]).len(), 2);
    }
}
