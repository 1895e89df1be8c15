//! What can be wrong with bytes, or with a value that shall become bytes.

use crate::versions::Versions;

/// A message that could not be read or written: what was wrong, and at which field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireError {
    /// The innermost field of a table at which it went wrong; empty outside of tables (headers, trailing bytes).
    pub field: &'static str,
    /// What was wrong.
    pub fault: Fault,
}

impl WireError {
    /// The same error, placed at a field if it has no place yet.
    pub(crate) fn at(mut self, field: &'static str) -> WireError {
        if self.field.is_empty() {
            self.field = field;
        }
        self
    }
}

impl From<Fault> for WireError {
    fn from(fault: Fault) -> WireError {
        WireError { field: "", fault }
    }
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.field {
            "" => write!(f, "{}", self.fault),
            field => write!(f, "{} (at {field})", self.fault),
        }
    }
}

impl std::error::Error for WireError {}

/// What was wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A field needs more bytes than there are.
    #[error("the message ends early: {needed} bytes needed, {remaining} left")]
    Truncated {
        /// What the field needs.
        needed: usize,
        /// What is left.
        remaining: usize,
    },
    /// A length or count that is negative and does not mean null.
    #[error("negative length {0}")]
    NegativeLength(i32),
    /// An array whose elements cannot fit into the bytes that remain.
    #[error("an array of {count} elements cannot fit into the {remaining} bytes left")]
    CountTooLarge {
        /// The number of elements announced.
        count: usize,
        /// What is left.
        remaining: usize,
    },
    /// The message would take far more memory than it has bytes.
    #[error(
        "the message would take too much memory for its size: {needed} bytes needed, {budget} left to it"
    )]
    TooDense {
        /// What the next array or string needs.
        needed: usize,
        /// What the message may still take.
        budget: usize,
    },
    /// A variable length number with more than 32 bits.
    #[error("a variable length number does not fit into 32 bits")]
    VarintTooLong,
    /// A string that is not UTF-8.
    #[error("a string is not UTF-8")]
    NotUtf8,
    /// Null where this version knows no null.
    #[error("null is not allowed in version {version}")]
    Null {
        /// The version of the message.
        version: i16,
    },
    /// Tagged fields must ascend.
    #[error("tagged field {tag} comes after {previous}")]
    TagOrder {
        /// The tag that came too late.
        tag: u32,
        /// The one before it.
        previous: u32,
    },
    /// A known tagged field was shorter than its announced size.
    #[error("{0} bytes are left over in a tagged field")]
    TagSize(usize),
    /// The message is over and bytes are left.
    #[error("{0} bytes are left over after the message")]
    Trailing(usize),
    /// A version that the message does not have.
    #[error("version {version} is not supported, only {supported}")]
    Version {
        /// The version asked for.
        version: i16,
        /// The versions that the message has.
        supported: Versions,
    },
    /// A value that the chosen version cannot carry and that may not be dropped.
    #[error("the value cannot be said in version {version}")]
    NotCarried {
        /// The version of the message.
        version: i16,
    },
    /// A string, array or frame that is too long for its length field.
    #[error("a length of {0} does not fit into its field")]
    TooLong(usize),
}
