//! Keeps the program in memory.

use std::io;

use procfs::process::{MMPermissions, MMapPath, Process};

use super::check;

/// Returns the mappings of files that are only read: the code and constants of the program, and those of its libraries.
fn file_mappings() -> io::Result<Vec<(u64, u64)>> {
    let maps = Process::myself().and_then(|own| own.maps()).map_err(io::Error::other)?;
    Ok(maps
        .into_iter()
        .filter(|map| matches!(map.pathname, MMapPath::Path(_)))
        .filter(|map| map.perms.contains(MMPermissions::READ))
        .filter(|map| !map.perms.contains(MMPermissions::WRITE))
        .map(|map| map.address)
        .collect())
}

/// Lets the kernel keep each page of the program and its libraries that was used once (`MLOCK_ONFAULT`). Other memory
/// is not locked: glibc cannot return locked memory to the kernel.
///
/// Returns the size of what is locked in bytes.
///
/// # Errors
/// As `mlock2(2)`: `ENOMEM` beyond `RLIMIT_MEMLOCK`, `EPERM` where that is 0. What was locked before stays locked.
pub fn lock_program() -> io::Result<u64> {
    let mut locked = 0;
    for (start, end) in file_mappings()? {
        let (Ok(address), Ok(length)) = (usize::try_from(start), usize::try_from(end - start))
        else {
            continue;
        };
        let address = address as *const libc::c_void;
        // SAFETY: the call changes no memory, and a range that is not mapped is an error.
        check(unsafe { libc::mlock2(address, length, libc::MLOCK_ONFAULT) })?;
        locked += end - start;
    }
    Ok(locked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_among_the_mappings_and_no_memory_that_is_written() {
        let mappings = file_mappings().unwrap();
        let code = file_mappings as *const () as u64;
        let on_stack = &raw const mappings as u64;
        let is_in = |at: u64| mappings.iter().any(|&(start, end)| (start..end).contains(&at));
        assert!(is_in(code) && !is_in(on_stack));
    }
}
