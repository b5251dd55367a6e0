//! Draws the counters that the daemon prints at its exit.

use crate::Result;

/// Maximum width of a bar.
const WIDTH: u64 = 46;

/// Draws the latency histogram and a line of counters.
pub(crate) fn print(counters: &str) -> Result<()> {
    let values = || counters.lines().filter_map(|line| line.split_once(' '));
    let value = |name| values().find(|&(own, _)| own == name).map_or("?", |(_, value)| value);
    let buckets: Vec<(u64, u64)> = values()
        .filter_map(|(name, count)| {
            Some((name.strip_prefix("latency_us_le_")?.parse().ok()?, count.parse().ok()?))
        })
        .collect();
    let most = buckets.iter().map(|&(_, count)| count).max().unwrap_or(0).max(1);
    say!("\n4. Counters of the daemon. Maximum time from event to placement:\n");
    for (upper, count) in buckets {
        let bar = "#".repeat(usize::try_from((count * WIDTH).div_ceil(most))?);
        say!("{}", format!("  {upper:>8} us {count:>7}  {bar}").trim_end());
    }
    let [p50, p99, max] = ["latency_p50_us", "latency_p99_us", "latency_max_us"].map(value);
    say!("\n   half within {p50} us, 99 of 100 within {p99} us, the slowest {max} us");
    let [events, placed, lost, refused] = ["events", "placed", "lost_events", "refused"].map(value);
    say!("   {events} events received, {lost} lost; {placed} moves, {refused} refused");
    Ok(())
}
