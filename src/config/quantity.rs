//! Parses times and sizes with a unit; it accepts whole numbers only.

use std::time::Duration;

/// Parses a time such as `100ms`, `10s`, `5m` or `1h`; `0` needs no unit.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let scale = match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "" if number == 0 => 1,
        _ => return None,
    };
    number.checked_mul(scale).map(Duration::from_micros)
}

/// Parses a size in bytes such as `4096`, `64K`, `16M` or `1G`; units are powers of 1024.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let scale = match unit {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(scale)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, &text[digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("100ms"), Some(Duration::from_millis(100)));
        assert_eq!(duration("5m"), Some(Duration::from_secs(300)));
        assert_eq!(duration("0"), Some(Duration::ZERO));
        for wrong in
            ["", "5", "ms", "-1s", "1.5s", "5 s", "99999999999999999999s", "9999999999999h"]
        {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(size("4096"), Some(4096));
        assert_eq!(size("16M"), Some(16 << 20));
        for wrong in ["", "M", "16MB", "16m", "-1", "99999999999999G"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }
}
