//! What opening a store finds and leaves alone.

use std::fmt;
use std::path::PathBuf;

/// Something in the directory of a store that is not as it should be. It was left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, and what becomes of it.
    pub what: String,
    /// The object that it is about, if it is one.
    pub key: Option<String>,
}

impl Finding {
    pub(super) fn unknown(path: PathBuf) -> Finding {
        let what = "this name is none of the store's; the file is left alone".to_owned();
        Finding { path, what, key: None }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.what)
    }
}
