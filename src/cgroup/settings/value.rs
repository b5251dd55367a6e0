//! Parses and checks the values of settings. Pure.

use std::fmt::Display;
use std::str::FromStr;

use super::SettingMessage;
use crate::config::quantity;

/// A limit of a resource, possibly absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// No limit.
    Max,
    /// A limit of this number of bytes, processes or microseconds.
    At(u64),
}

impl Bound {
    pub(super) fn v2(self) -> String {
        self.or("max")
    }

    pub(super) fn v1(self) -> String {
        self.or("-1")
    }

    /// Returns the notation of `blkio.throttle.*`.
    pub(super) fn throttle(self) -> String {
        self.or("0")
    }

    fn or(self, none: &str) -> String {
        match self {
            Self::Max => none.to_owned(),
            Self::At(number) => number.to_string(),
        }
    }
}

/// The content of a v1 limit file without a limit: the largest number of whole pages.
const V1_UNLIMITED: u64 = i64::MAX as u64 & !4095;
/// The kernel's `PID_MAX_LIMIT`.
const MOST_PROCESSES: u64 = 4_194_304;
/// The highest CPU or memory node number that is accepted.
const MOST_CPUS: u64 = 1 << 20;
/// The default period in microseconds.
pub(super) const PERIOD: u64 = 100_000;
/// The shortest and the longest period in microseconds; the former is also the shortest quota.
const PERIODS: (u64, u64) = (1_000, 1_000_000);
/// The largest quota in microseconds: 100 days of one CPU.
const MOST_QUOTA: u64 = 100 * 86_400 * 1_000_000;

/// Parses a whole number in a range.
pub(super) fn whole<N: FromStr + PartialOrd + Display + Copy>(
    text: &str,
    low: N,
    high: N,
) -> Result<N, SettingMessage> {
    let found = text.parse().ok().filter(|number| (low..=high).contains(number));
    found.ok_or_else(|| {
        let percent = if text.ends_with('%') { "this setting accepts no percentage: " } else { "" };
        let help = format!("{percent}write a whole number from {low} to {high}");
        SettingMessage::new(format!("invalid value {}", quoted(text)), help)
    })
}

/// Parses a size such as `1073741824`, `1024M` or `1G`, or `max`. On v1, `-1` and values above its
/// largest limit mean `max`.
pub(super) fn max_or_size(text: &str, is_v1: bool) -> Result<Bound, SettingMessage> {
    if text == "max" || is_v1 && text == "-1" {
        return Ok(Bound::Max);
    }
    match size(text) {
        Some(bytes) if is_v1 && bytes >= V1_UNLIMITED => Ok(Bound::Max),
        Some(bytes) => Ok(Bound::At(bytes)),
        None => {
            let help = match text.ends_with('%') {
                true => {
                    "only cpu.max and, from 1% to 100%, memory limits accept a percentage: write 512M, 2G or max"
                }
                false => "write bytes, a size such as 64K, 512M or 2G, or max",
            };
            Err(SettingMessage::new(format!("invalid value {}", quoted(text)), help))
        }
    }
}

/// Parses bytes. A suffix is a power of 1024, in upper or lower case as the kernel accepts it.
fn size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let shift = match &text[digits..] {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// Parses a number of processes, or `max`.
pub(super) fn count(text: &str) -> Result<String, SettingMessage> {
    if text == "max" || text == "-1" {
        return Ok("max".to_owned());
    }
    let number = whole(text, 0, MOST_PROCESSES);
    number.map(|number| number.to_string()).map_err(|diagnostic| SettingMessage {
        help: format!("{}, or max", diagnostic.help),
        ..diagnostic
    })
}

/// Parses microseconds, given as a number or as a duration.
pub(super) fn microseconds(text: &str) -> Result<String, SettingMessage> {
    let time = quantity::duration(text).and_then(|time| u64::try_from(time.as_micros()).ok());
    // The kernel stores nanoseconds.
    let found = text.parse().ok().or(time).filter(|&us: &u64| us <= i64::MAX as u64 / 1000);
    found.map(|us| us.to_string()).ok_or_else(|| {
        let help = "write microseconds, or a duration such as \"5ms\"";
        SettingMessage::new(format!("invalid value {}", quoted(text)), help)
    })
}

/// Checks a list of numbers and ranges such as `0-3,8`. An empty list means the value of the
/// parent.
pub(super) fn list(text: &str) -> Result<String, SettingMessage> {
    if text.is_empty() {
        // write(2) with no bytes has no effect.
        return Ok("\n".to_owned());
    }
    if text.split(',').all(is_list_item) {
        return Ok(text.to_owned());
    }
    Err(invalid(text, "write numbers and ranges such as \"0-3,8\""))
}

/// Checks a number or a range of a list.
fn is_list_item(item: &str) -> bool {
    match item.split_once('-') {
        Some((first, last)) => {
            matches!((list_number(first), list_number(last)), (Some(a), Some(b)) if a <= b)
        }
        None => list_number(item).is_some(),
    }
}

fn list_number(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|&number| number <= MOST_CPUS)
}

/// Parses a CPU quota and, if given, its period, both in microseconds: `max`, `50000`,
/// `50000 100000`, or `50%` of one CPU. On v1 it is a single number, or `-1`. The quota is `None`
/// without a limit.
pub(super) fn quota(text: &str, is_v1: bool) -> Result<(Option<u64>, Option<u64>), SettingMessage> {
    let help = match is_v1 {
        true => "write microseconds of at least 1000, or -1",
        false => "write \"50%\" of one CPU, \"QUOTA PERIOD\" in microseconds, or \"max\"",
    };
    if is_v1 && text.parse::<i64>().is_ok_and(|number| number < 0) {
        return Ok((None, None));
    }
    if let (false, Some(percent)) = (is_v1, text.strip_suffix('%')) {
        let percent = percent.trim().parse::<u64>().ok();
        let quota = percent.and_then(|percent| percent.checked_mul(PERIOD / 100));
        let quota = quota.filter(|quota| (PERIODS.0..=MOST_QUOTA).contains(quota));
        return Ok((Some(quota.ok_or_else(|| invalid(text, help))?), None));
    }
    let mut words = text.split_ascii_whitespace();
    let quota = match words.next() {
        Some("max") if !is_v1 => None,
        Some(word) => {
            let number = word.parse().ok().filter(|n| (PERIODS.0..=MOST_QUOTA).contains(n));
            Some(number.ok_or_else(|| invalid(text, help))?)
        }
        None => return Err(invalid(text, help)),
    };
    let period = match words.next() {
        Some(word) if !is_v1 => {
            let number = word.parse().ok().filter(|n| (PERIODS.0..=PERIODS.1).contains(n));
            let help = "write a period of 1000 to 1000000 microseconds";
            Some(number.ok_or_else(|| invalid(text, help))?)
        }
        Some(_) => return Err(invalid(text, help)),
        None => None,
    };
    match words.next() {
        None => Ok((quota, period)),
        Some(_) => Err(invalid(text, help)),
    }
}

const DEVICE: &str = "begin with a device number as shown by lsblk, such as \"8:0\"";

/// Splits a device such as `8:0` from the rest of the value.
pub(super) fn device(text: &str) -> Result<(&str, &str), SettingMessage> {
    let (device, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let number = device.split_once(':');
    match number.map(|(major, minor)| (major.parse::<u32>(), minor.parse::<u32>())) {
        Some((Ok(_), Ok(_))) => Ok((device, rest.trim())),
        Some(_) | None => Err(SettingMessage::new("missing device number", DEVICE)),
    }
}

/// Limits by their names in `io.max`.
pub(super) type Rates = Vec<(&'static str, Bound)>;

/// The names of the limits in `io.max`.
const RATES: [&str; 4] = ["rbps", "wbps", "riops", "wiops"];

/// Parses a device with the limits of `io.max`.
pub(super) fn device_rates(text: &str) -> Result<(&str, Rates), SettingMessage> {
    let (device, rest) = device(text)?;
    let help = "write limits such as rbps=1M wbps=max riops=100 wiops=100 after the device";
    let rates: Option<Rates> = rest.split_ascii_whitespace().map(device_rate).collect();
    let rates = rates.filter(|rates| !rates.is_empty());
    Ok((device, rates.ok_or_else(|| invalid(text, help))?))
}

/// Parses a limit of `io.max`.
fn device_rate(word: &str) -> Option<(&'static str, Bound)> {
    let (name, value) = word.split_once('=')?;
    let name = RATES.into_iter().find(|known| *known == name)?;
    let bound = max_or_size(value, false).ok()?;
    // The kernel rejects a limit of 0.
    (bound != Bound::At(0)).then_some((name, bound))
}

fn invalid(text: &str, help: &str) -> SettingMessage {
    SettingMessage::new(format!("invalid value {}", quoted(text)), help)
}

/// Quotes a value for a message, truncated to 60 characters.
fn quoted(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("\"{}…\"", &text[..end]),
        None => format!("\"{text}\""),
    }
}
