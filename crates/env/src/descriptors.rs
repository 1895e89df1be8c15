//! How many files, sockets included, this process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The most that [`raise_open_files`] asks for. Some systems allow a thousand million.
const OPEN_FILES_MAX: u64 = 1 << 20;
/// The limit if the system does not tell: the usual one of a shell.
const OPEN_FILES_USUAL: u64 = 1_024;

/// Raises the limit on open files (`RLIMIT_NOFILE`) to the most that this process may have, and returns it. The usual
/// limit of a shell is meant for programs that cannot handle more files; we can.
pub fn raise_open_files() -> u64 {
    let (current, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => {
            tracing::warn!(%error, "cannot read the limit on open files");
            return OPEN_FILES_USUAL;
        }
    };
    let most = hard.min(OPEN_FILES_MAX);
    if current >= most {
        return most;
    }
    match setrlimit(Resource::RLIMIT_NOFILE, most, hard) {
        Ok(()) => most,
        Err(error) => {
            tracing::warn!(%error, most, "cannot raise the limit on open files");
            current
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_to_the_most_that_is_allowed() {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let raised = raise_open_files();
        assert_eq!(raised, most.min(OPEN_FILES_MAX));
        let (current, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert!(current >= raised, "{current}");
    }
}
