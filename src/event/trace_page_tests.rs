use super::*;
use proptest::prelude::*;

const HEADER: &str = include_str!("../../tests/cases/trace/header_page");
const FORMAT: &str = include_str!("../../tests/cases/trace/format");
/// Five moves on Linux 6.18 (x86-64), with 300 ms between the second and the third.
const MOVES: &[u8] = include_bytes!("../../tests/cases/trace/moves.page");
/// The first page after 900 of 1,000 moves had been overwritten.
const OVERWRITTEN: &[u8] = include_bytes!("../../tests/cases/trace/lost.page");

fn layout() -> TraceLayout {
    TraceLayout::parse(HEADER, FORMAT).unwrap()
}

/// Returns a page that was recorded on a little-endian machine, as this machine would have written it.
fn native(recorded: &[u8]) -> Vec<u8> {
    let mut bytes = recorded.to_vec();
    if cfg!(target_endian = "little") {
        return bytes;
    }
    let end = 16 + usize::from(u16::from_le_bytes([recorded[8], recorded[9]]));
    bytes[..8].reverse();
    bytes[8..16].reverse();
    let mut at = 16;
    while at < end {
        let word = u32::from_le_bytes(*recorded[at..].first_chunk().unwrap());
        let (kind, delta) = (word & 0x1f, word >> 5);
        bytes[at..at + 4].copy_from_slice(&header(kind, delta).to_ne_bytes());
        at = match kind {
            PADDING => break,
            TIME_EXTEND | TIME_STAMP => {
                bytes[at + 4..at + 8].reverse();
                at + 8
            }
            words => {
                let start = at + 4;
                // Fields of 2 (common_type), 4 and 8 bytes (dst_id); the strings follow at 36.
                for (offset, size) in [(0, 2), (4, 4), (8, 4), (12, 4), (16, 8)] {
                    bytes[start + offset..][..size].reverse();
                }
                for offset in [24, 28, 32] {
                    bytes[start + offset..][..4].reverse();
                }
                start + 4 * words as usize
            }
        };
    }
    bytes
}

/// Returns the moves of a page in the format of the kernel's text file `trace`.
fn rendered(bytes: &[u8]) -> Vec<String> {
    let layout = layout();
    let page = TracePage::parse(&layout, bytes).unwrap();
    let lines = page.moves().map(|found| {
        let found = found.unwrap();
        let microseconds = (found.at.0 + 500) / 1000;
        format!(
            "{} {}.{:06}: dst_root={} dst_id={} dst_path={} pid={} comm={}",
            found.mover,
            microseconds / 1_000_000,
            microseconds % 1_000_000,
            found.hierarchy,
            found.cgroup,
            String::from_utf8_lossy(found.path),
            found.pid,
            String::from_utf8_lossy(found.comm),
        )
    });
    lines.collect()
}

/// Returns the same for a line of `trace`, such as `python3-27200   [000] d..1. 22053.472089:
/// cgroup_attach_task: dst_root=0 dst_id=377231 dst_level=2 dst_path=/a pid=27241 comm=sleep`.
fn expected(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (_, mover) = words[0].rsplit_once('-').unwrap();
        let fields: Vec<&str> =
            words[5..].iter().filter(|word| !word.starts_with("dst_level")).copied().collect();
        format!("{mover} {} {}", words[3], fields.join(" "))
    });
    lines.collect()
}

#[test]
fn a_page_of_the_kernel_has_the_moves_of_its_own_text() {
    let page = native(MOVES);
    let moves = rendered(&page);
    assert_eq!(moves, expected(include_str!("../../tests/cases/trace/moves.txt")));
    assert!(moves[3].contains("dst_root=8 dst_id=1 dst_path=/ "), "a move in a v1 hierarchy");
    assert_eq!(TracePage::parse(&layout(), &page).unwrap().lost(), LostBefore::None);
}

#[test]
fn a_full_page_after_a_loss_tells_so_without_a_number() {
    let page = native(OVERWRITTEN);
    assert_eq!(rendered(&page), expected(include_str!("../../tests/cases/trace/lost.txt")));
    assert_eq!(TracePage::parse(&layout(), &page).unwrap().lost(), LostBefore::Unknown);
}

#[test]
fn the_number_of_lost_records_follows_the_data() {
    let mut page = native(MOVES);
    let length = word_at(&page, 8, 8).unwrap() as u32;
    page[8..16].copy_from_slice(&u64::from(length | LOST | LOST_STORED).to_ne_bytes());
    page[16 + length as usize..][..8].copy_from_slice(&900u64.to_ne_bytes());
    assert_eq!(TracePage::parse(&layout(), &page).unwrap().lost(), LostBefore::Exactly(900));
    assert_eq!(rendered(&page).len(), 5);
    page.truncate(16 + length as usize + 7);
    assert!(TracePage::parse(&layout(), &page).is_err());
}

fn header(kind: u32, delta: u32) -> u32 {
    if cfg!(target_endian = "big") { kind << DELTA_BITS | delta } else { delta << 5 | kind }
}

/// Returns one move as a record: to the cgroup 7 at `/a`.
fn record() -> [u32; 11] {
    let mut words = [0; 11];
    let text = [b'/', b'a', 0, b'x', 0, 0, 0, 0];
    words[0] = u32::from_ne_bytes(538u16.to_ne_bytes().repeat(2).try_into().unwrap());
    (words[1], words[6]) = (10, 20);
    let id = 7u64.to_ne_bytes();
    words[4] = u32::from_ne_bytes(*id.first_chunk().unwrap());
    words[5] = u32::from_ne_bytes(*id.last_chunk().unwrap());
    (words[7], words[8]) = (3 << 16 | 36, 2 << 16 | 39);
    words[9] = u32::from_ne_bytes(*text.first_chunk().unwrap());
    words
}

/// Returns a page that begins at 1,000 ns, with a short or long `commit`.
fn page(layout: &TraceLayout, words: &[u32]) -> Vec<u8> {
    let length = 4 * words.len() as u32;
    let mut bytes = 1000u64.to_ne_bytes().to_vec();
    match layout.page.word {
        4 => bytes.extend(length.to_ne_bytes()),
        _ => bytes.extend(u64::from(length).to_ne_bytes()),
    }
    bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    bytes
}

fn times(layout: &TraceLayout, bytes: &[u8]) -> Result<Vec<u64>, MalformedPage> {
    let page = TracePage::parse(layout, bytes)?;
    page.moves().map(|found| found.map(|found| found.at.0)).collect()
}

fn short_layout() -> TraceLayout {
    let text = HEADER.replace("offset:8;\tsize:8", "offset:8;\tsize:4");
    TraceLayout::parse(&text.replace("offset:16;", "offset:12;"), FORMAT).unwrap()
}

#[test]
fn every_kind_of_event_moves_the_time() {
    let words = [
        &[header(11, 5)][..],
        &record(),
        &[header(TIME_EXTEND, 3), 1, header(11, 0)],
        &record(),
        &[header(PADDING, 1), 12, 0, 0],
        &[header(PADDING, 20), 12, 0, 0],
        &[header(0, 4), 4 * 12],
        &record(),
        &[header(TIME_STAMP, 9), 2, header(11, 1)],
        &record(),
        &[header(PADDING, 0), 0, 0],
    ];
    let extended = 1005 + 3 + (1 << 27);
    let expected = vec![1005, extended, extended + 24, 10 + (2 << 27)];
    for layout in [layout(), short_layout()] {
        assert_eq!(times(&layout, &page(&layout, &words.concat())), Ok(expected.clone()));
    }
}

#[test]
fn a_record_of_another_event_only_moves_the_time() {
    let mut other = record();
    other[0] = 1;
    let words = [&[header(11, 1)], &other[..], &[header(11, 1)], &record()].concat();
    assert_eq!(times(&layout(), &page(&layout(), &words)), Ok(vec![1002]));
}

#[test]
fn births_are_told_from_moves() {
    const NEWTASK: &str = include_str!("../../tests/cases/trace/newtask_format");
    let with_births = layout().with_births(NEWTASK).unwrap();
    // common_type 205, common_pid 10, pid 20.
    let birth = [u32::from_ne_bytes(205u16.to_ne_bytes().repeat(2).try_into().unwrap()), 10, 20];
    let words = [&[header(3, 1)], &birth[..], &[header(11, 1)], &record()].concat();
    let bytes = page(&with_births, &words);
    let moves = TracePage::parse(&with_births, &bytes).unwrap().moves();
    let found: Vec<_> =
        moves.map(|found| found.map(|of| (of.is_birth, of.mover, of.pid))).collect();
    assert_eq!(found, [Ok((true, 10, 20)), Ok((false, 10, 20))]);
    assert_eq!(times(&layout(), &bytes), Ok(vec![1002]), "not asked for");
    let cut = page(&with_births, &[header(2, 1), birth[0], 10]);
    assert!(times(&with_births, &cut).is_err());
}

#[test]
fn absolute_times_keep_the_high_bits() {
    let high = 3 << 59;
    assert_eq!(absolute(5, Nanos(4)), Nanos(5));
    assert_eq!(absolute(5, Nanos(high | 4)), Nanos(high | 5));
    assert_eq!(absolute(5, Nanos(high | 6)), Nanos((4 << 59) | 5));
}

#[test]
fn impossible_records_are_malformed() {
    fn is_malformed(words: &[u32]) -> bool {
        times(&layout(), &page(&layout(), words)).is_err()
    }
    fn with(index: usize, value: u32) -> Vec<u32> {
        let mut words = record();
        words[index] = value;
        [&[header(11, 0)], &words[..]].concat()
    }
    assert!(!is_malformed(&with(10, 0)));
    assert!(is_malformed(&with(1, u32::MAX)), "a negative thread ID");
    assert!(is_malformed(&with(7, 0xffff_ffff)), "a path outside of the record");
    assert!(is_malformed(&[header(12, 0), 0]), "an event longer than the page");
    assert!(is_malformed(&[header(0, 0), 0]), "a length without its own size");
    assert!(is_malformed(&[header(0, 0), u32::MAX]));
    assert!(is_malformed(&[header(PADDING, 1), u32::MAX]));
    assert!(is_malformed(&[header(TIME_EXTEND, 1)]));
}

proptest! {
    #[test]
    fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        for layout in [layout(), short_layout()] {
            if let Ok(page) = TracePage::parse(&layout, &bytes) {
                prop_assert!(page.moves().count() <= bytes.len() / 4);
            }
        }
    }

    #[test]
    fn any_events_end(mut words in proptest::collection::vec(any::<u32>(), 0..150), small: bool) {
        if small {
            words.iter_mut().for_each(|word| *word &= 0xff);
        }
        let bytes = page(&layout(), &words);
        let layout = layout();
        let page = TracePage::parse(&layout, &bytes).unwrap();
        prop_assert!(page.moves().count() <= words.len());
    }

    #[test]
    fn any_change_of_a_real_page_ends(
        changes in proptest::collection::vec((0usize..400, any::<u8>()), 0..8),
        length in 0usize..=4096,
        cut: bool,
    ) {
        for upstream in [MOVES, OVERWRITTEN] {
            let mut bytes = native(upstream);
            for &(index, byte) in &changes {
                bytes[index] = byte;
            }
            bytes.truncate(if cut { length } else { bytes.len() });
            let layout = layout();
            if let Ok(page) = TracePage::parse(&layout, &bytes) {
                prop_assert!(page.moves().count() <= bytes.len() / 4);
                let mut moves = page.moves();
                let inside = moves.all(|found| found.is_err() || found.is_ok_and(|found| {
                    found.path.len() + found.comm.len() <= bytes.len()
                }));
                prop_assert!(inside);
            }
        }
    }

    #[test]
    fn a_truncated_page_has_a_beginning_of_its_moves(length in 0usize..=4096) {
        let layout = layout();
        let recorded = native(OVERWRITTEN);
        let whole: Vec<_> = TracePage::parse(&layout, &recorded).unwrap().moves().collect();
        let mut bytes = recorded[..length].to_vec();
        if length < 16 {
            prop_assert!(TracePage::parse(&layout, &bytes).is_err());
            return Ok(());
        }
        bytes[8..16].copy_from_slice(&(length as u64 - 16).to_ne_bytes());
        let page = TracePage::parse(&layout, &bytes).unwrap();
        let found: Vec<_> = page.moves().take_while(Result::is_ok).collect();
        prop_assert_eq!(&found[..], &whole[..found.len()]);
    }
}
