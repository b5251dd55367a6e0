//! Numbers, durations and times in the form shown to users.

/// Formats a number with separators for thousands: `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a number with its noun: `3 lines`, `1 line`.
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// Formats microseconds: `104 us`, `1.2 ms`, `3.4 s`.
pub(super) fn microseconds(us: u64) -> String {
    match us {
        ..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        _ => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

/// Formats seconds in the two greatest units: `3 d 4 h`, `5 min 2 s`.
pub(super) fn span(seconds: u64) -> String {
    let minutes = seconds / 60;
    let hours = seconds / 3600;
    let days = seconds / 86_400;
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {} min", minutes % 60),
        (days, hours, _) => format!("{days} d {} h", hours % 24),
    }
}

/// Formats the time of day in UTC from milliseconds since 1970: `13:55:31.123Z`.
pub(super) fn time_of_day(ms: u64) -> String {
    let seconds = ms / 1000 % 86_400;
    let hours = seconds / 3600;
    let minutes = seconds / 60 % 60;
    format!("{hours:02}:{minutes:02}:{:02}.{:03}Z", seconds % 60, ms % 1000)
}

/// Formats a time in UTC from seconds since 1970: `2026-11-24 13:55:31 UTC`.
pub(super) fn date(seconds: u64) -> String {
    // Howard Hinnant's algorithm "days to civil", restricted to years from 1970.
    let shifted = seconds / 86_400 + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let time = time_of_day(seconds * 1000);
    format!("{year}-{month:02}-{day:02} {} UTC", time.get(..8).unwrap_or_default())
}

/// Formats a time in UTC from milliseconds since 1970: `2026-11-24 13:55:31.123Z`.
pub(super) fn timestamp(ms: u64) -> String {
    let date = date(ms / 1000);
    let day = date.split(' ').next().unwrap_or_default();
    format!("{day} {}", time_of_day(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(counted(1, "file", "files"), "1 file");
        assert_eq!(
            [7, 999, 1_250, 12_000_000].map(microseconds),
            ["7 us", "999 us", "1.2 ms", "12.0 s"]
        );
        assert_eq!(
            [59, 61, 7_322, 90_000].map(span),
            ["59 s", "1 min 1 s", "2 h 2 min", "1 d 1 h"]
        );
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(date(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(date(1_795_528_531), "2026-11-24 13:55:31 UTC");
        assert_eq!(time_of_day(1_795_528_531_123), "13:55:31.123Z");
        assert_eq!(timestamp(1_795_528_531_123), "2026-11-24 13:55:31.123Z");
    }
}
